"""What a run leaves behind is kept small while it goes on: few large files, and no history beyond `run.keep_days`.

Every block that a player writes is a file, and each commit, each reader and each restart costs time for every file of
the table (measured: `tests/benchmarks/bench_many_writers.py`). So whenever a run has brought enough of them, they are
made into few; and every hour, what nobody can ask for any more is deleted: replaced files, old entries of the logs,
blocks that were never committed. Both in a process of its own beside the archive. That is safe beside every writer and
reader, and harmless to lose half way (`selfplay.store.table.maintenance`, `selfplay.store.table.log_trim`).
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from selfplay.io import storage
from selfplay.store import open as open_corpus
from selfplay.store.table import maintenance as upkeep
from selfplay.store.table import side_tables
from selfplay.store.table.log_trim import Trimmed, delete_orphans, is_due, trim_log
from trainers.run.event_log import note
from trainers.run.failure_causes import in_words
from trainers.run.placement import Place
from trainers.run.settings import RunSettings

#: So many small files are made into few.
MOST_FILES = 1000
#: So many rows of side tables, each of which is a file, too.
MOST_ROWS = 200
#: How often old history is deleted, seconds.
TRIM_S = 3600.0
#: How often the folder of the episodes is searched for files that were never committed, seconds.
SEARCH_S = 86400.0
#: Of the large ones, bytes. In memory they are several times as large, and two are there at once.
LARGE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Chores:
    """What is to be done. run_id: of the run whose episodes are compacted, besides the side tables; None: none.

    trim: delete old history. search: and look for files that were never committed. keep_days: `run.keep_days`.
    """

    corpus: str
    run_id: str | None
    trim: bool
    search: bool
    keep_days: float | None


@dataclass(frozen=True)
class Done:
    """What was done. before, after: files that compaction found and left. trimmed: None where nothing was to be
    deleted. orphans: files that were never committed, deleted; orphan_bytes: their size."""

    before: int
    after: int
    trimmed: Trimmed | None = None
    orphans: int = 0
    orphan_bytes: int = 0


class Tidier:
    """Has the files of one run compacted, and old history of its corpus deleted, time and again.

    place: where that is done. keep_days: of the run's settings. The run's log says when it was done, and when it
    failed.
    """

    def __init__(self, corpus: str, run_id: str, place: Place, keep_days: float | None) -> None:
        self._corpus, self._run_id, self._keep_days = corpus, run_id, keep_days
        once = ray.remote(max_calls=1)(do)  # nobody is to have this process, with its niceness, after it
        self._do = once.options(num_cpus=0, max_retries=0, **place.options())
        self._small = upkeep.small_files(open_corpus(corpus), run_id, LARGE_BYTES)
        self._rows = side_tables.small_files(corpus)
        due = keep_days is not None and is_due(corpus, keep_days)
        self._trimmed = time.monotonic() - (TRIM_S if due else 0.0)
        self._searched = -math.inf
        self._under_way: Any = None

    def archived(self, blocks: int) -> None:
        """So many files more. Returns at once; what failed is tried again after as many files more."""
        self._small += blocks
        self._look()

    def entered(self, rows: int) -> None:
        """So many rows of side tables more. Returns at once."""
        self._rows += rows
        self._look()

    def _look(self) -> None:
        if self._under_way is not None and ray.wait([self._under_way], timeout=0)[0]:
            self._ended()
        now = time.monotonic()
        blocks, trim = self._small >= MOST_FILES, now - self._trimmed >= TRIM_S
        if self._under_way is None and (blocks or trim or self._rows >= MOST_ROWS):
            search = trim and now - self._searched >= SEARCH_S
            self._small, self._rows = (0 if blocks else self._small), 0
            self._trimmed = now if trim else self._trimmed
            self._searched = now if search else self._searched
            chores = Chores(self._corpus, self._run_id if blocks else None, trim, search, self._keep_days)
            self._under_way = self._do.remote(chores)

    def stop(self) -> None:
        """Ends what is under way."""
        if self._under_way is not None:
            ray.cancel(self._under_way, force=True)
            self._under_way = None

    def _ended(self) -> None:
        under_way, self._under_way = self._under_way, None
        try:
            done: Done = ray.get(under_way)
        except RayError as error:
            note(self._run_id, "not compacted", why=in_words(error))
            return
        note(self._run_id, "compacted", before=done.before, after=done.after)
        if done.trimmed is not None:
            more = {"orphans": done.orphans, "orphan_bytes": done.orphan_bytes}
            note(self._run_id, "deleted history", **asdict(done.trimmed), **more)


def do(chores: Chores) -> Done:
    """The upkeep of a run's corpus, with little claim to the processor."""
    corpus = chores.corpus
    storage.refuse_unseen(corpus)
    os.nice(19)  # it has time, unlike who plays
    if chores.run_id is None:
        before, after = side_tables.compact(corpus)
    else:
        done = upkeep.compact(corpus, LARGE_BYTES, chores.run_id)
        before, after = done.files_before + done.side_before, done.files_after + done.side_after
    if not chores.trim:
        return Done(before, after)
    side_tables.give_back(corpus)
    days = longest_history(corpus, chores.keep_days)
    if days is None:
        return Done(before, after)
    trimmed = trim_log(corpus, days, dry_run=False)
    return Done(before, after, trimmed, *(delete_orphans(corpus, days) if chores.search else ()))


def longest_history(corpus: str, mine: float | None) -> float | None:
    """The most days of history that any run with episodes in the corpus asks for; None: one wants all of it.

    mine: of the run that asks. Runs of older versions of the package asked for nothing: the default is theirs.
    """
    opened = open_corpus(corpus)
    there = {file["partition.run_id"] for file in opened.files()}
    rows = opened.table("runs", ["run_id", "epoch", "config"]).sort_by("epoch").to_pylist()
    configs = {row["run_id"]: row["config"] for row in rows if row["run_id"] in there}
    wanted = [_keep_days(config) for config in configs.values()]
    known = [days for days in (mine, *wanted) if days is not None]
    return max(known) if len(known) == len(wanted) + 1 else None


def _keep_days(config: str | None) -> float | None:
    """`run.keep_days` of a run's settings, JSON; None also where they cannot be read."""
    try:
        days = json.loads(config or "{}").get("run", {}).get("keep_days", RunSettings().keep_days)
        return None if days is None or not float(days) > 0 else float(days)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
