"""The folder of a run belongs to whoever holds its lease."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay import run_files
from selfplay.store import Fenced, acquire
from trainers.recipe import load_recipe
from trainers.run_folder import RunFolder
from trainers.run_state import State


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
    assert run_files.read_state(str(run))["version"] == 7


def test_a_late_write_of_a_driver_that_was_replaced_changes_nothing(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        RunFolder(str(run), config, State, first).begin("{}")
    (sent,) = (run / "state").iterdir()
    late = sent.read_text().replace('"version": -1', '"version": 3')
    with acquire(str(run), "second") as second:
        after = RunFolder(str(run), config, State, second)
        after.begin("{}")
        sent.write_text(late)  # a put that was under way while the lease ran out
        assert after.reload().version == -1
    assert RunFolder(str(run), config, State).state.version == -1


def test_states_of_drivers_long_gone_are_deleted(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    for _ in range(4):
        with acquire(str(run), "somebody") as lease:
            folder = RunFolder(str(run), config, State, lease)
            folder.begin("{}")
            folder.forget_old()
    assert run_files.state_epochs(str(run)) == [3, 4]


def test_a_run_of_schema_1_goes_on(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        RunFolder(str(run), config, State, first).begin("{}")
    (saved,) = (run / "state").iterdir()
    saved.rename(run / "state.json")
    old = json.loads((run / "state.json").read_text())
    del old["sha256"]  # schema 1 had no seal
    (run / "state.json").write_text(json.dumps({**old, "schema": 1, "version": 3}))
    with acquire(str(run), "second") as second:
        folder = RunFolder(str(run), config, State, second)
        assert folder.state.version == 3
        folder.begin("{}")
    saved = run_files.read_state(str(run))
    assert (saved["version"], saved["schema"]) == (3, 2)
    assert not (run / "state.json").exists()
