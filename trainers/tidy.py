"""Few large files out of many small ones, while a run goes on.

Every block that a player writes is a file, and each commit, each reader and each restart costs time for every file of
the table (measured: `tests/benchmarks/bench_many_writers.py`). So whenever a run has brought enough of them, they are
made into few, in a process of its own beside the archive. That is safe beside every writer and reader, and harmless to
lose half way (`selfplay.store.upkeep`).
"""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from ray.exceptions import RayError

from selfplay import storage
from selfplay.store import open as open_corpus
from selfplay.store import side_tables, upkeep
from trainers.causes import in_words
from trainers.journal import note
from trainers.placement import Place

#: So many small files are made into few.
MOST_FILES = 1000
#: So many rows of side tables, each of which is a file, too.
MOST_ROWS = 200
#: How often what replaced files take is given back, seconds.
GIVE_BACK_S = 3600.0
#: Of the large ones, bytes. In memory they are several times as large, and two are there at once.
LARGE_BYTES = 32 * 2**20


class Tidier:
    """Has the files of one run compacted, time and again.

    place: where that is done. The run's log says when it was done, and when it failed.
    """

    def __init__(self, corpus: str, run_id: str, place: Place) -> None:
        self._corpus, self._run_id = corpus, run_id
        once = ray.remote(max_calls=1)(_compact)  # nobody is to have this process, with its niceness, after it
        self._compact = once.options(num_cpus=0, max_retries=0, **place.options())
        self._small = upkeep.small_files(open_corpus(corpus), run_id, LARGE_BYTES)
        self._rows = side_tables.small_files(corpus)
        self._gave_back = time.monotonic()
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
        if self._under_way is None and (self._small >= MOST_FILES or self._rows >= MOST_ROWS):
            blocks = self._small >= MOST_FILES
            now = time.monotonic()
            give_back = now - self._gave_back >= GIVE_BACK_S
            self._small, self._rows = (0 if blocks else self._small), 0
            self._gave_back = now if give_back else self._gave_back
            self._under_way = self._compact.remote(self._corpus, self._run_id if blocks else None, give_back)

    def stop(self) -> None:
        """Ends what is under way."""
        if self._under_way is not None:
            ray.cancel(self._under_way, force=True)
            self._under_way = None

    def _ended(self) -> None:
        done, self._under_way = self._under_way, None
        try:
            before, after = ray.get(done)
        except RayError as error:
            note(self._run_id, "not compacted", why=in_words(error))
        else:
            note(self._run_id, "compacted", before=before, after=after)


def _compact(corpus: str, run_id: str | None, give_back: bool) -> tuple[int, int]:
    """Files before and after. run_id: of the run whose episodes are compacted, besides the side tables; None: none."""
    storage.refuse_unseen(corpus)
    os.nice(19)  # it has time, unlike who plays
    if run_id is None:
        files = side_tables.compact(corpus)
    else:
        done = upkeep.compact(corpus, LARGE_BYTES, run_id)
        files = done.files_before + done.side_before, done.files_after + done.side_after
    if give_back:
        side_tables.give_back(corpus)
    return files
