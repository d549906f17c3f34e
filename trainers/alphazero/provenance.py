"""Which archived positions a published version was trained on: from the table `uses` alone, to the last sample.

A learner samples by (seed, step, rank) from a window that depends on nothing but what came into it, in which order.
So a row of `uses` lists what came in and when steps were taken, and everything else is computed again. A row goes on
from that of the version which it was trained from: after a crash that is not always the version before it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.training import COLUMNS, count_rows, row_places
from selfplay.errors import UserError
from selfplay.store.corpus.newest import latest
from selfplay.store.table.changes import run_at
from selfplay.store.table.counts import archived_at
from selfplay.store.table.snapshot import Snapshot
from selfplay.store.table.table import first_line
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.replay_window import WindowSettings, draw, step_rng

Array = np.ndarray[Any, Any]

#: Episodes turned into rows at once when a window is refilled.
REFILL_EPISODES = 512
#: More than any learner takes: samples a step, and steps between two versions.
_MOST_BATCH, _MOST_STEPS = 2**24, 2**24


def sampler_of(settings: LearnerSettings) -> str:
    """What a sampler's draws depend on besides its window's content: JSON, for the column `sampler`."""
    window = settings.window
    return json.dumps(
        {
            "seed": settings.seed,
            "batch": settings.batch,
            "shards": max(1, settings.learners),
            "window": {name: getattr(window, name) for name in ("initial", "alpha", "beta", "maximum")},
        }
    )


def newest_episodes(corpus: Snapshot, which: pc.Expression, capacity: int, total: int) -> pa.Table:
    """The newest of some episodes that fill a window of `capacity` rows; `total`: rows that all of them give.

    Openings and cheap searches are steps, too, but give no rows.
    """
    wanted, steps = min(capacity, total), capacity
    while True:
        newest = latest(corpus, which, steps)
        found = count_rows(newest)
        if found >= wanted:
            return newest
        steps = math.ceil(1.1 * steps * min(4.0, wanted / max(found, 1)))


def samples_of(corpus: Snapshot, run_id: str, version: int) -> Counter[tuple[str, int]]:
    """(episode id, step) -> how often the steps that made a version of the run's net sampled it.

    Raises `UserError` where the table of uses has no such version, or the episodes of its window are gone.
    """
    rows = [row for row in corpus.rows("uses") if row["run_id"] == run_id]
    known = {(row["version_out"], row["digest_out"]): row for row in rows}
    row = next((row for (number, _), row in known.items() if number == version), None)
    if row is None:
        raise UserError(f"the corpus at {corpus.uri} does not say what version {version} of {run_id} was trained on")
    found: Counter[tuple[str, int]] = Counter()
    try:
        replayed = _Replayed(corpus, run_id, json.loads(row["sampler"]))
        for event in _before(row, known):
            replayed.take(event, count=False)
        for event in row["events"] or ():
            found.update(replayed.take(event, count=True))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        what = f"says of version {version} of {run_id} what no learner does"
        raise UserError(f"the table of uses of {corpus.uri} {what}: {first_line(error)}") from error
    return found


def _before(row: dict[str, Any], known: dict[tuple[int, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """What a learner's window had taken in before the events of a row, from when it was filled anew.

    known: rows of the run by the version and the digest that they tell of.
    """
    before: list[dict[str, Any]] = []
    done = [event["what"] for event in row["events"] or ()]
    done = done[: done.index("train")] if "train" in done else done
    while "refill" not in done:
        parent = known.get((row["version_in"], row["digest_in"]))
        if parent is None or parent["version_out"] >= row["version_out"]:
            name = f"version {row['version_out']} of {row['run_id']}"
            raise UserError(f"the table of uses does not say how the window from which {name} learned was filled")
        row, done = parent, [event["what"] for event in parent["events"] or ()]
        before = [*(row["events"] or ()), *before]
    return before


class _Replayed:
    """The learners' windows with the places of rows instead of rows."""

    def __init__(self, corpus: Snapshot, run_id: str, sampler: dict[str, Any]) -> None:
        self._corpus, self._run_id = corpus, run_id
        self._seed, self._batch, self._shards = sampler["seed"], sampler["batch"], sampler["shards"]
        if not 0 < self._shards <= self._batch <= _MOST_BATCH:  # the corpus may be a stranger's
            raise ValueError(f"{self._shards} learners with {self._batch} samples a step")
        self._whole = WindowSettings(**sampler["window"])
        self._shard = self._whole.divided(self._shards)
        self._clear(0)

    def _clear(self, total: int) -> None:
        self._ids: list[str] = []
        self._windows: list[Array] = [np.zeros((0, 2), np.int64) for _ in range(self._shards)]
        self._totals = [total // self._shards] * self._shards
        self._rows = 0

    def take(self, event: dict[str, Any], count: bool) -> Counter[tuple[str, int]]:
        """Does again what the learner did; for steps, returns what they sampled, if it is to be counted."""
        if event["what"] == "refill":
            self._refill(event["table_version"])
        elif event["what"] == "add":
            self._add(self._block(event), new=True)
        elif count:
            steps = range(event["first_step"], event["last_step"] + 1)
            if steps.stop - steps.start > _MOST_STEPS:
                raise ValueError(f"{steps.stop - steps.start:,} steps between two versions")
            return self._sampled(steps)
        return Counter()

    def _refill(self, table_version: int) -> None:
        corpus, mine = run_at(self._corpus.uri, self._run_id, table_version)
        mine &= pc.field("trainable")
        total = archived_at(self._corpus.uri, self._run_id, table_version).training_rows
        self._clear(total)
        newest = newest_episodes(corpus, mine, self._whole.capacity(total), total)
        for first in range(0, newest.num_rows, REFILL_EPISODES):
            self._add(newest.slice(first, REFILL_EPISODES), new=False)

    def _block(self, event: dict[str, Any]) -> pa.Table:
        where = (
            (pc.field("run_id") == self._run_id)
            & (pc.field("slot") == event["slot"])
            & (pc.field("epoch") == event["epoch"])
            & (pc.field("number") >= event["first"])
            & (pc.field("number") <= event["last"])
        )
        episodes = self._corpus.to_arrow(where, ["episode_id", "number", *COLUMNS]).sort_by("number")
        if episodes.num_rows != event["last"] - event["first"] + 1:
            raise UserError(f"episodes of {self._run_id}/{event['slot']}/{event['epoch']} are not in this version")
        return episodes

    def _add(self, episodes: pa.Table, new: bool) -> None:
        places = row_places(episodes)
        places[:, 0] += len(self._ids)
        self._ids += episodes.column("episode_id").to_pylist()
        if not len(places):
            return
        shard_of = (np.arange(len(places)) + self._rows) % self._shards
        self._rows += len(places)
        for shard in range(self._shards):
            mine = places[shard_of == shard]
            self._totals[shard] += len(mine) if new else 0
            keep = self._shard.capacity(self._totals[shard])
            self._windows[shard] = np.concatenate([self._windows[shard], mine])[-keep:]

    def _sampled(self, steps: range) -> Counter[tuple[str, int]]:
        found: Counter[tuple[str, int]] = Counter()
        for rank, window in enumerate(self._windows):
            times = np.zeros(len(window), np.int64)
            for step in steps:
                index = draw(step_rng(self._seed, step, rank), len(window), self._batch // self._shards)
                np.add.at(times, index, 1)
            for i in np.flatnonzero(times):
                episode, ply = window[i]
                found[self._ids[episode], int(ply)] += int(times[i])
        return found


def versions_of(corpus: Snapshot, run_id: str) -> Iterator[int]:
    """Versions of the run's net whose samples can be told, ascending."""
    rows = (row for row in corpus.rows("uses") if row["run_id"] == run_id)
    yield from sorted({row["version_out"] for row in rows if row["version_out"] is not None})
