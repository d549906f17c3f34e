"""The folder of a run belongs to whoever holds its lease."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay.store import Fenced, acquire
from trainers.recipe import load_recipe
from trainers.run_folder import RunFolder, State


def test_a_driver_that_was_replaced_writes_nothing_over(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        before = RunFolder(str(run), config, State, first)
        before.begin("{}")
        before.state.version = 3
        before.save()
        first.release()  # as its heartbeats stop to arrive
        with acquire(str(run), "second") as second:
            after = RunFolder(str(run), config, State, second)
            after.state.version = 7
            after.save()
            with pytest.raises(Fenced):
                before.save()
    assert json.loads((run / "state.json").read_text())["version"] == 7
