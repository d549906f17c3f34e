"""The table `closings`: what each incarnation of a run's driver had archived when it ended.

A driver keeps the account from the receipts that it gets, and writes it down as the last thing it does: one row, one
commit. One that was killed leaves none; the next incarnation, which has fenced it, counts what the table holds of it
before it plays on. So the end of each writer's chain is known, and episodes that are missing there show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from selfplay.store.table.chain import Chains, chains_of
from selfplay.store.table.counters import WRITERS_PER_DRIVER
from selfplay.store.table.drivers import NOT_COUNTED, TAKEN_OVER
from selfplay.store.table.receipt import Receipt
from selfplay.store.table.snapshot import Snapshot, open
from selfplay.store.table.table import append
from selfplay.store.table.write import Block


@dataclass
class Ledger:
    """What a driver knows to be archived of its writers, by slot and epoch. table_version: that holds all of it."""

    table_version: int = 0
    writers: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def archived(self, block: Block, receipt: Receipt) -> None:
        """A block has its receipt. Those of a writer come in their order."""
        before = self.writers.get((block.slot, block.epoch), {"aborted": 0})
        self.writers[block.slot, block.epoch] = {
            "slot": block.slot,
            "epoch": block.epoch,
            "episodes": block.last + 1,
            "aborted": before["aborted"] + block.aborted,
            "head": block.head,
        }
        self.table_version = max(self.table_version, receipt.table_version)

    def closing(self, run_id: str, epoch: int, how: str, lost: int | None) -> dict[str, Any]:
        """The row of the driver's incarnation `epoch`. lost: episodes that died unsealed, if that is known."""
        return _row(run_id, epoch, how, self.table_version, list(self.writers.values()), lost)


def _row(
    run_id: str, epoch: int, how: str, version: int, writers: Sequence[Mapping[str, Any]], lost: int | None
) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "epoch": epoch,
        "how": how,
        "table_version": version,
        "episodes": sum(one["episodes"] for one in writers),
        "aborted": sum(one["aborted"] for one in writers),
        "lost": lost,
        "writers": sorted(writers, key=lambda one: (one["slot"], one["epoch"])),
        "closed_at": datetime.now(UTC),
    }


def close_earlier(corpus_uri: str, run_id: str, epoch: int, lost: int | None = None) -> int:
    """Writes the closings of earlier incarnations of a run that have left none; how many those are.

    epoch: of the driver that has taken over: nothing of earlier ones can be committed any more. lost: episodes that
    the run has lost so far, if that is known; what no closing accounts for was lost by the newest of those killed.
    Where a file is damaged nobody knows how many there were, and their closings say that.
    """
    corpus = open(corpus_uri)
    closed = [row for row in corpus.rows("closings") if row["run_id"] == run_id]
    first = max((row["epoch"] for row in closed), default=0) + 1
    chains = _chains(corpus, run_id, first * WRITERS_PER_DRIVER, epoch * WRITERS_PER_DRIVER)
    while chains.unread and corpus.refresh().version > corpus.version:  # compacted and vacuumed meanwhile
        corpus = corpus.refresh()
        chains = _chains(corpus, run_id, first * WRITERS_PER_DRIVER, epoch * WRITERS_PER_DRIVER)
    if chains.unread:
        unread = _drivers(corpus, run_id, first, epoch)
        rows = [_row(run_id, one, NOT_COUNTED, corpus.version, [], None) for one in unread]
        return append(corpus_uri, "closings", rows) if rows else 0
    writers: dict[int, list[dict[str, Any]]] = {}
    for (_, slot, writer_epoch), spans in chains.spans.items():
        ended = {
            "slot": slot,
            "epoch": writer_epoch,
            "episodes": spans[-1].last + 1,
            "aborted": sum(span.aborted for span in spans),
            "head": spans[-1].head,
        }
        writers.setdefault(writer_epoch // WRITERS_PER_DRIVER, []).append(ended)
    if lost is not None:
        lost -= sum(row["lost"] or 0 for row in closed)
    rows = [
        _row(run_id, one, TAKEN_OVER, corpus.version, writers[one], lost if one == max(writers) else None)
        for one in sorted(writers)
    ]
    return append(corpus_uri, "closings", rows) if rows else 0


def not_counted(corpus: Snapshot) -> list[dict[str, Any]]:
    """Closings for drivers that have none, and that another one of their run has followed, as where a damaged file of
    the table was taken out: nobody knows any more how much they had archived."""
    runs, closings = (corpus.rows(name, ["run_id", "epoch"]) for name in ("runs", "closings"))
    began = {(row["run_id"], row["epoch"]) for row in runs if None not in row.values()}
    newest = dict(sorted(began))
    left = began - {(row["run_id"], row["epoch"]) for row in closings} - newest.items()
    return [_row(run_id, epoch, NOT_COUNTED, corpus.version, [], None) for run_id, epoch in sorted(left)]


def _drivers(corpus: Snapshot, run_id: str, first: int, end: int) -> list[int]:
    """Drivers from `first` on, below `end`, that may have archived anything, as far as the log says it."""
    found = set[int]()
    for file in corpus.files():
        if file["partition.run_id"] == run_id:
            low, high = (file.get(f"{bound}.epoch") for bound in ("min", "max"))
            lowest = first if low is None else max(first, low // WRITERS_PER_DRIVER)
            highest = end - 1 if high is None else min(end - 1, high // WRITERS_PER_DRIVER)
            found |= set(range(lowest, highest + 1))
    return sorted(found)


def _chains(corpus: Snapshot, run_id: str, first: int, end: int) -> Chains:
    """The chains of a run's writers with epochs from `first` on, below `end`."""
    files = {
        file["path"]
        for file in corpus.files()
        if file["partition.run_id"] == run_id and (file.get("max.epoch") or end) >= first
    }
    return chains_of(corpus, (pc.field("epoch") >= first) & (pc.field("epoch") < end), files)
