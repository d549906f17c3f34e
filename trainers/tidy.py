"""Few large files out of many small ones, while a run goes on.

Every block that a player writes is a file, and each commit, each reader and each restart costs time for every file of
the table (measured: `tests/benchmarks/bench_many_writers.py`). So whenever a run has brought enough of them, they are
made into few, in a process of its own beside the archive. That is safe beside every writer and reader, and harmless to
lose half way (`selfplay.store.upkeep`).
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.exceptions import RayError

from selfplay import storage
from selfplay.store import open as open_corpus
from selfplay.store import upkeep
from trainers.causes import in_words
from trainers.journal import note
from trainers.placement import Place

#: So many small files are made into few.
MOST_FILES = 1000
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
        self._under_way: Any = None

    def archived(self, blocks: int) -> None:
        """So many files more. Returns at once; what failed is tried again after as many files more."""
        self._small += blocks
        if self._under_way is not None and ray.wait([self._under_way], timeout=0)[0]:
            self._ended()
        if self._under_way is None and self._small >= MOST_FILES:
            self._small = 0
            self._under_way = self._compact.remote(self._corpus, self._run_id)

    def stop(self) -> None:
        """Ends what is under way."""
        if self._under_way is not None:
            ray.cancel(self._under_way, force=True)
            self._under_way = None

    def _ended(self) -> None:
        done, self._under_way = self._under_way, None
        try:
            compacted: upkeep.Compacted = ray.get(done)
        except RayError as error:
            note(self._run_id, "not compacted", why=in_words(error))
        else:
            note(self._run_id, "compacted", before=compacted.files_before, after=compacted.files_after)


def _compact(corpus: str, run_id: str) -> upkeep.Compacted:
    storage.refuse_unseen(corpus)
    os.nice(19)  # it has time, unlike who plays
    return upkeep.compact(corpus, LARGE_BYTES, run_id)
