"""A corpus that runs share keeps as much history as the one of them that asks for most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyspiel

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch
from trainers.alphazero.config import SelfPlayRunSettings
from trainers.run.auto_compaction import longest_history

GAME = pyspiel.load_game("tic_tac_toe")
DEFAULT = SelfPlayRunSettings().keep_days


def archive(uri: str, run_id: str) -> None:
    committer = store.Committer(uri, run_id, 1)
    provenance = Provenance(run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    epoch = committer.register("p0").epoch
    game = random_episode(GAME, 0, provenance, slot="p0", epoch=epoch, number=0)
    committer.commit([store.write_block(uri, to_batch([game]), "p0", epoch, 0)])


def test_the_run_that_asks_for_most_decides(tmp_path: Path) -> None:
    uri, epochs = str(tmp_path), iter(range(1, 100))

    def begin(run_id: str, config: str | None) -> None:
        store.append(uri, "runs", [{"run_id": run_id, "epoch": next(epochs), "config": config}])

    def asks(days: Any) -> str:
        return json.dumps({"run": {"keep_days": days}})

    for run_id in ("one", "two"):
        archive(uri, run_id)
    assert longest_history(uri, 3.0) == 3.0
    begin("one", asks(3.0))
    begin("two", asks(30.0))
    assert longest_history(uri, 3.0) == 30.0
    begin("two", asks(5))
    assert longest_history(uri, 3.0) == 5.0, "what it asked for last counts"
    begin("two", json.dumps({"run": {}}))
    assert longest_history(uri, 3.0) == DEFAULT, "of an older version of the package"
    for days in (None, "many", -1.0, float("nan"), {}):
        begin("two", asks(days))
        assert longest_history(uri, 3.0) is None, f"{days!r}: everything is kept"
    begin("two", asks(2.0))
    begin("gone", asks(None))
    assert longest_history(uri, 3.0) == 3.0, "a run that has no episodes there asks for nothing"
    assert longest_history(uri, None) is None
    begin("two", "[" * 100_000)
    assert longest_history(uri, 3.0) is None
