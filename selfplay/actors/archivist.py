"""The committer as an actor: the one place of a run that makes written blocks part of the corpus.

Ray restarts it and repeats calls after a crash; both are harmless, because the committer recognises in the log what it
has committed before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.io import storage
from selfplay.store.table.closings import close_earlier
from selfplay.store.table.commit import Committer, Registration
from selfplay.store.table.receipt import Receipt
from selfplay.store.table.table import append
from selfplay.store.table.write import Block


class Archivist:
    """Commits the blocks of one run and adds rows to the side tables."""

    def __init__(self, run_uri: str, corpus: str, run_id: str, epoch: int) -> None:
        storage.refuse_unseen(run_uri)
        self._committer = Committer(corpus, run_id, epoch)

    def pid(self) -> int:
        """The process, for who wants to watch or to kill it."""
        return os.getpid()

    def mended(self) -> list[str]:
        """What had to be repaired of the corpus before it could be written to, a sentence each."""
        return [f"{step.subject} {step.reason}; {step.result}" for step in self._committer.mended]

    def register(self, slot: str) -> Registration:
        """Admits a new writer to a slot; whoever wrote there before is fenced."""
        return self._committer.register(slot)

    def commit(self, blocks: Sequence[Block]) -> list[Receipt]:
        """Makes the blocks part of the corpus, each exactly once."""
        return self._committer.commit(blocks)

    def close_earlier(self, lost: int | None) -> int:
        """Writes down what incarnations that were killed had archived; see `selfplay.store.table.closings`."""
        committer = self._committer
        return close_earlier(committer.corpus_uri, committer.run_id, committer.epoch, lost)

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Adds rows to a side table, those whose key is not there yet."""
        return append(self._committer.corpus_uri, table, rows)
