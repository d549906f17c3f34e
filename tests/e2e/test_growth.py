"""Months of a thousand actors in miniature: what a run leaves behind, beside its episodes, does not grow with its age.

Each "week" brings blocks of many slots, versions, a writer that dies before it could commit, and a restart. Nobody
cleans up but the run itself, by what it does as it goes on. Then everything becomes a week older. Bounds are those of a
run with `keep_days = 7`: what is deleted at the end of a week is what came in the week before the last.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyspiel
import pytest
import ray

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.nets import weights
from selfplay.store.table import counts, log, repair, table
from selfplay.store.table.counts import archived_by
from trainers.kinds import SELF_PLAY
from trainers.recipe import load_recipe
from trainers.run import auto_compaction
from trainers.run.auto_compaction import Tidier
from trainers.run.placement import Place
from trainers.run.run_folder import RunFolder

GAME = pyspiel.load_game("tic_tac_toe")
WEEKS, SLOTS, COMMITS, BLOCKS, VERSIONS = 7, 1000, 20, 5, 10
WEEK_S = 7 * 86400
MOST_FILES, MOST_ROWS = 40, 8


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work that a run gives to a process of its own is done here, at once; thresholds are those of a miniature."""
    configuration = table._configuration
    often = {"delta.checkpointInterval": "10"}
    monkeypatch.setattr(table, "_configuration", lambda statistics: {**configuration(statistics), **often})
    monkeypatch.setattr(auto_compaction, "MOST_FILES", MOST_FILES)
    monkeypatch.setattr(auto_compaction, "MOST_ROWS", MOST_ROWS)
    monkeypatch.setattr(os, "nice", lambda more: None)
    here = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=auto_compaction.do))
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: here)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", lambda done: done)


def size_of(place: Path, *patterns: str) -> tuple[int, int]:
    """Files and bytes."""
    found = [path for pattern in patterns for path in place.glob(pattern) if path.is_file()]
    return len(found), sum(path.stat().st_size for path in found)


def left_behind(run: Path) -> dict[str, tuple[int, int]]:
    corpus = run / "corpus"
    return {
        "data": size_of(corpus, "episodes/kind=*/*/*.parquet"),
        "log": size_of(corpus, "episodes/_delta_log/*"),
        "side tables": size_of(corpus, "policies/**/*", "uses/**/*"),
        "history": size_of(corpus, "history/*"),
        "state": size_of(run, "state/*", "begun/*", "checkpoints/*", "*.json"),
        "claims": size_of(run, "weights/*.claim"),
    }


def a_week_later(run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, (status.st_atime - WEEK_S, status.st_mtime - WEEK_S))


class Week:
    """One driver's part of a run, without Ray, players and learner."""

    def __init__(self, run: Path, number: int) -> None:
        self.uri, self.number = str(run / "corpus"), number
        self.lease = store.acquire(str(run), "a driver")
        self.folder = RunFolder(str(run), load_recipe("tic_tac_toe"), SELF_PLAY, self.lease)
        self.folder.run_id = "run"
        self.folder.begin("{}")
        self.committer = store.Committer(self.uri, "run", self.lease.epoch)
        self.tidier = Tidier(self.uri, "run", Place(), self.folder.config.run.keep_days)
        self.provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
        self.seeds = iter(range(number * 10**6, (number + 1) * 10**6))

    def block(self, slot: str) -> store.Block:
        epoch = self.committer.register(slot).epoch
        game = random_episode(GAME, next(self.seeds), self.provenance, slot=slot, epoch=epoch, number=0)
        return store.write_block(self.uri, to_batch([game]), slot, epoch, 0)

    def play(self) -> Iterator[None]:
        slots = random.Random(self.number).sample(range(SLOTS), COMMITS * BLOCKS + 1)
        names = iter([f"p{slot:04d}" for slot in slots])
        for commit in range(COMMITS):
            self.committer.commit([self.block(next(names)) for _ in range(BLOCKS)])
            self.tidier.archived(BLOCKS)
            if commit % (COMMITS // VERSIONS) == 0:
                self.publish()
            yield
        self.block(next(names))  # of a writer that dies here
        self.folder.save()
        self.folder.forget_old()
        self.lease.release()

    def publish(self) -> None:
        run, tensors = self.folder.uri, {"a": np.zeros(1, np.float32)}
        version = self.folder.state.version = weights.save_version(run, self.folder.state.version + 1, tensors, {})
        events: list[dict[str, Any]] = []
        rows = {
            "policies": {"policy_id": "run", "version": version, "digest": "d"},
            "uses": {"run_id": "run", "version_out": version, "digest_out": "d", "events": events},
        }
        for name, row in rows.items():
            self.tidier.entered(store.append(self.uri, name, [row]))


@pytest.mark.slow
def test_months_of_a_thousand_actors_in_miniature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    run, uri, rows = tmp_path / "run", str(tmp_path / "run" / "corpus"), []
    released, pinned = -1, set[str]()
    for number in range(WEEKS):
        began = time.perf_counter()
        week = Week(run, number)
        with monkeypatch.context() as reading:
            reading.setattr(store.Corpus, "episodes", None)  # a restart reads no episode
            assert archived_by(store.open(uri), "run").episodes == number * COMMITS * BLOCKS
        restart = time.perf_counter() - began
        for _ in week.play():
            pass
        if number == 1:
            corpus = store.open(uri)
            released, pinned = corpus.version, set(corpus.to_arrow(columns=["episode_id"])["episode_id"].to_pylist())
            store.append(uri, "releases", [{"name": "first", "table_version": released}])
        rows.append(left_behind(run))
        print(number, f"restart {restart:.2f} s", rows[-1])
        a_week_later(run)

    a_week = COMMITS * BLOCKS
    files = {name: count for name, (count, _) in rows[-1].items()}
    assert files["data"] <= 3 * a_week + len(store.open(uri, released).files()) + 3, "two weeks, small files, a release"
    assert files["log"] <= 3 * COMMITS * 1.5 + 20, "of two weeks, with checkpoints and compactions, and of a release"
    assert files["side tables"] <= 2 * 3 * (VERSIONS + MOST_ROWS) * 2
    assert files["history"] == 1 and files["claims"] <= VERSIONS and files["state"] <= 10
    for name, (count, size) in rows[-1].items():
        early = rows[WEEKS // 2][name]
        assert count <= 1.3 * early[0] + 5, f"{name}: {early[0]} files became {count}"
        if name not in ("data", "side tables", "history"):  # these hold episodes, versions, and writers
            assert size <= 1.5 * early[1], f"{name}: {early[1]} bytes became {size}"  # a checkpoint knows every slot

    corpus = store.open(uri)
    assert counts.archived_by(corpus, "run").episodes == corpus.count() == WEEKS * a_week
    assert len(pc.unique(corpus.to_arrow(columns=["episode_id"])["episode_id"])) == WEEKS * a_week
    assert set(store.open(uri, released).to_arrow(columns=["episode_id"])["episode_id"].to_pylist()) == pinned
    versions = corpus.table("policies")["version"].to_pylist()
    assert len(versions) == len(set(versions)) == WEEKS * VERSIONS
    assert not log.check(f"{uri}/episodes") and not repair.is_damaged(uri)
