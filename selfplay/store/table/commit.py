"""The committer: makes written blocks part of the corpus, each exactly once.

Delta does not skip a replayed transaction and lets a counter go back, so the committer compares for itself, against
the same snapshot from which it then commits. Each slot has one counter in the log (`run_id/slot`), that holds the
epoch of the writer and the number of its last block. Every commit of a run also moves one counter of the whole run
(`run_id`), that holds the epoch of the driver: two committers of one run therefore always collide, and the one with
the lower epoch finds out that it was replaced. Commits of different runs do not collide. And as long as the counter of
the run is where this committer left it, so are those of its slots: they need not be sought in the log again, which
would cost more than the rest of a commit of a thousand writers.

Exactly once holds through the death of any process, at any instant, and through that of the machine: a receipt is given
when the block, the entry of the log, all entries that it builds on, and the names of all of them have reached the disk
(fsync); in a bucket, when the requests were answered. A power cut can leave damaged what nobody was told of, and a disk
that breaks or lies can damage more: a committer finds that in the log when it opens the corpus, and restores the log
from the blocks (`selfplay.store.table.repair`). Not covered: who reads the newest version before its receipts are given
may, after a power cut, have seen one that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from selfplay.episode import clock
from selfplay.episode.schema import PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.object_store import Patience
from selfplay.store.table import counts, log
from selfplay.store.table.counters import WRITERS_PER_DRIVER, pack, unpack
from selfplay.store.table.counts import Counts
from selfplay.store.table.entries import sealed
from selfplay.store.table.receipt import Receipt
from selfplay.store.table.repair import mend
from selfplay.store.table.resubmitted import refuse_others
from selfplay.store.table.table import (
    MAX_COMMIT_RETRIES,
    check_name,
    episodes_uri,
    first_line,
    open_or_create_episodes,
    pause,
)
from selfplay.store.table.write import Block


class Fenced(Exception):
    """A newer driver, or a newer writer in the same slot, has taken over; the call committed nothing."""


class OutOfOrder(ValueError):
    """A block whose number does not follow the last one of its slot: one before it is missing."""


@dataclass(frozen=True)
class Registration:
    """What a writer must use: its slot, which may not be the one that was asked for, its epoch, and the number of its
    next block."""

    slot: str
    epoch: int
    next_number: int


class Committer:
    """The only committer of a run, by its epoch. One a run; not shared between threads."""

    def __init__(self, corpus_uri: str, run_id: str, epoch: int) -> None:
        """Takes over the run's part of the corpus. epoch: of the driver, from its lease, at least 1.

        Raises `Fenced` if a committer with a higher epoch was here, `UserError` if the corpus has a newer schema.
        """
        if epoch < 1:
            raise ValueError(f"a driver's epoch is at least 1, got {epoch}")
        self.corpus_uri = corpus_uri
        self.run_id = check_name("run id", run_id)
        self.epoch = epoch
        self._registered: dict[str, int] = {}
        self._counter: int | None = None  # of the run, when `_last` was right
        self._last: dict[str, tuple[int, int]] = {}  # slot -> (epoch, number) of its last block
        self._counts: Counts | None = None  # of the run, when `_last` was right
        #: What had to be repaired of the corpus's logs before it could be opened.
        self.mended = mend(corpus_uri)
        self._table = open_or_create_episodes(corpus_uri)
        self._place = episodes_uri(corpus_uri)
        self._durable = log.last_checkpoint(self._place) - 1  # of what came later some may not be on the disk
        self._commit([])

    @property
    def table_version(self) -> int:
        """Of the episodes table, after the last commit of this committer."""
        return int(self._table.version())

    def register(self, slot: str, resume: int | None = None) -> Registration:
        """Admits a writer to `slot`; whoever wrote there before is fenced.

        Where the slot has had all the writers that one driver may give it, the next goes to a slot beside it: `p0003`,
        `p0003.1`, `p0003.2`, …
        resume: the epoch of a writer that is still alive and goes on under a new committer of the same driver.
        Raises `Fenced` if the slot has been given to a newer writer since.
        """
        check_name("slot", slot)
        epoch, number = self._last_of(slot)
        newest = max(epoch, self._registered.get(slot, 0))
        if resume is None:
            resume = max(self.epoch * WRITERS_PER_DRIVER, newest + 1)
            if resume >= (self.epoch + 1) * WRITERS_PER_DRIVER:
                stem, dot, times = slot.rpartition(".")
                return self.register(f"{stem}.{int(times) + 1}" if dot and times.isdigit() else f"{slot}.1")
        elif resume < newest:
            raise Fenced(f"slot {slot} belongs to epoch {newest} now, epoch {resume} may not go on")
        self._registered[slot] = resume
        return Registration(slot, resume, number + 1 if resume == epoch else 0)

    def commit(self, blocks: Sequence[Block]) -> list[Receipt]:
        """Makes the blocks part of the corpus, all in one version of the table, those already there left out.

        Safe to repeat with the same blocks after a crash or an error, at any time. Receipts come in the order of
        `blocks`. Raises `Fenced`, `OutOfOrder` or `Taken`; then nothing was committed.
        """
        for block in blocks:
            if block.run_id != self.run_id:
                raise ValueError(f"a block of run {block.run_id} was given to the committer of {self.run_id}")
            if block.counts.episodes != block.rows:
                raise ValueError(f"block {block.path} has {block.rows} episodes and counts {block.counts.episodes}")
        return self._commit(blocks)

    def _commit(self, blocks: Sequence[Block]) -> list[Receipt]:
        patience = Patience()
        for attempt in range(MAX_COMMIT_RETRIES):
            self._refresh()
            counter = self._table.transaction_version(self.run_id)
            if counter != self._counter:
                self._last.clear()
                self._counts = None
                self._counter = counter
            driver, commits = unpack(counter)
            if driver > self.epoch:
                raise Fenced(f"run {self.run_id} was taken over by epoch {driver}; this driver has {self.epoch}")
            new = self._new(blocks)
            if blocks and not new:
                return self._receipts(blocks, new)
            counters = {self._app(block.slot): pack(block.epoch, block.number) for block in new}
            moved = counters[self.run_id] = pack(self.epoch, commits + 1 if driver == self.epoch else 0)
            before = self._counts or counts.archived_at(self.corpus_uri, self.run_id, self.table_version)
            after = sum((block.counts for block in new), before)
            counters |= counts.counters(self.run_id, after, moved)
            storage.fault("before_commit")
            adds = [_action(block) for block in new]
            try:
                self._table.create_write_transaction(
                    list(adds),
                    "append",
                    self._table.schema(),
                    PARTITION_BY,
                    commit_properties=CommitProperties(
                        custom_metadata=dict(sealed(adds, counters)),
                        app_transactions=[Transaction(a, v, int(time.time() * 1000)) for a, v in counters.items()],
                        max_commit_retries=MAX_COMMIT_RETRIES,
                    ),
                )
            except CommitFailedError:
                pause(attempt)
                continue
            except (DeltaError, OSError) as error:
                if "No space left" in str(error):
                    raise UserError(f"the disk of {self.corpus_uri} is full; make room and run again") from error
                if patience.again(error):  # it may have been committed: the next look at the log tells
                    continue
                if not storage.is_remote(self.corpus_uri):
                    raise
                reason = first_line(error)
                raise UserError(f"the corpus at {self.corpus_uri} cannot be written: {reason}") from error
            storage.fault("after_commit")
            self._refresh()
            self._counter, self._counts = moved, after
            self._last |= {block.slot: (block.epoch, block.number) for block in new}
            return self._receipts(blocks, new)
        raise UserError(f"the corpus at {self.corpus_uri} is written by too many others at once; try again")

    def _refresh(self) -> None:
        patience = Patience()
        while True:
            try:
                self._table.update_incremental()
                return
            except (DeltaError, OSError) as error:
                if not patience.again(error):
                    raise UserError(f"the corpus at {self.corpus_uri} cannot be read: {first_line(error)}") from error

    def _new(self, blocks: Sequence[Block]) -> list[Block]:
        """Those blocks that are not in the table's snapshot, slot by slot in order; raises for what is refused."""
        new: list[Block] = []
        again: list[Block] = []
        last: dict[str, tuple[int, int]] = {}
        for block in sorted(blocks, key=lambda b: (b.slot, b.epoch, b.number)):
            if block.slot not in last:
                last[block.slot] = self._last_of(block.slot)
            epoch, number = last[block.slot]
            newest = max(epoch, self._registered.get(block.slot, 0))
            if (block.epoch, block.number) <= (epoch, number) and block.epoch == epoch:
                again.append(block)
                continue
            if block.epoch < newest:
                raise Fenced(f"slot {block.slot} belongs to epoch {newest} now; epoch {block.epoch} is refused")
            expected = number + 1 if block.epoch == epoch else 0
            if block.number != expected:
                raise OutOfOrder(f"slot {block.slot}: block {expected} must come next, got {block.number}")
            last[block.slot] = (block.epoch, block.number)
            new.append(block)
        self._check_files(new)
        if again:
            paths = pa.table(self._table.get_add_actions()).column("path").to_pylist()
            refuse_others(self.corpus_uri, set(paths), again)
        return new

    def _last_of(self, slot: str) -> tuple[int, int]:
        """(epoch, number) of the slot's last block in the table's snapshot; (0, -1) if there is none."""
        if slot not in self._last:
            self._last[slot] = unpack(self._table.transaction_version(self._app(slot)))
        return self._last[slot]

    def _check_files(self, blocks: Sequence[Block]) -> None:
        """The log accepts files that are missing or torn, and readers then fail: look first."""
        sizes = storage.sizes([storage.join(self._place, block.path) for block in blocks])
        for block, size in zip(blocks, sizes, strict=True):
            if size is None:
                raise ValueError(f"block {block.path} was never written")
            if size != block.size:
                raise ValueError(f"block {block.path} has {size} bytes instead of {block.size}")

    def _receipts(self, blocks: Sequence[Block], new: Sequence[Block]) -> list[Receipt]:
        log.persist(self._place, self._durable, self.table_version)
        self._durable = self.table_version
        fresh = {(block.slot, block.epoch, block.number) for block in new}
        return [
            Receipt(
                slot=block.slot,
                epoch=block.epoch,
                number=block.number,
                path=block.path,
                status="committed" if (block.slot, block.epoch, block.number) in fresh else "already",
                table_version=self.table_version,
                rows=block.rows,
                steps=block.steps,
            )
            for block in blocks
        ]

    def _app(self, slot: str) -> str:
        return f"{self.run_id}/{slot}"


def _action(block: Block) -> AddAction:
    return AddAction(
        path=block.path,
        size=block.size,
        partition_values={"kind": block.kind, "run_id": block.run_id},
        modification_time=int(clock.now() * 1000),  # what was begun since a time is sought in files since then
        data_change=True,
        stats=block.stats,
    )


def last_committed(table: DeltaTable, run_id: str, slot: str) -> tuple[int, int]:
    """(epoch, block number) of the last block of a slot in the table; (0, -1) if there is none."""
    return unpack(table.transaction_version(f"{run_id}/{slot}"))


def is_fenced(table: DeltaTable, run_id: str, slot: str, epoch: int) -> bool:
    """Whether nothing of this writer can be committed any more: its driver, or it in its slot, was replaced."""
    driver, _ = unpack(table.transaction_version(run_id))
    return driver > epoch // WRITERS_PER_DRIVER or last_committed(table, run_id, slot)[0] > epoch
