"""Which incarnations of a run's driver have a closing, and which must have one.

A driver that goes on with a run first closes those before it that left no closing (`selfplay.store.table.closings`),
and plays after that. So where one has played, the closing of an earlier one that archived anything is there, or was
removed. The last one of a run may have none: it is at work, or was killed and nobody has gone on since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from selfplay.store.coverage import FALSE, Check
from selfplay.store.table.counters import WRITERS_PER_DRIVER

#: How a driver ended. `NOT_COUNTED`: it was killed, and when the next one took over a file could not be read: nobody
#: knew how many episodes there were, and the closing names no writer.
FINISHED, INTERRUPTED, TAKEN_OVER, NOT_COUNTED = "finished", "interrupted", "taken over", "not counted"
#: run, epoch of its driver.
Driver = tuple[str, int]
Writer = tuple[str, str, int]


def driver_of(writer: Writer) -> Driver:
    return writer[0], (writer[2] or 0) // WRITERS_PER_DRIVER  # a stranger's row may have no epoch


def drivers_lie(
    linked: Mapping[Writer, bool],
    closings: Mapping[Driver, Mapping[str, Any]],
    began: Collection[Driver],
    unknown: Collection[str],
) -> Iterator[Check]:
    """What is false of the closings of drivers that archived anything: one is missing, or says too little.

    linked: of each writer of which episodes are there, whether they are of schema version 2 or later. closings: rows of
    that table. began: drivers that the table of runs has. unknown: runs of which it is not known what was taken out.

    Programs of other people may write without closings: only where the table of runs has the driver that went on, or
    where it has a closing itself, was it one of this package.
    """
    newest = defaultdict[str, int](lambda: -1)
    first_linked = dict[str, int]()
    for writer, is_linked in linked.items():
        run, driver = driver_of(writer)
        if is_linked:
            first_linked[run] = min(driver, first_linked.get(run, driver))
            if (run, driver) in began:
                newest[run] = max(newest[run], driver)
    for (run, driver), row in closings.items():
        if row["writers"]:
            newest[run] = max(newest[run], driver)
        if row["how"] == NOT_COUNTED and row["writers"]:
            yield Check(_subject(run, driver), FALSE, "it names writers, and says that they were not counted")
    for run, driver in sorted({driver_of(writer) for writer in linked}, key=repr):
        if driver < newest[run] and (run, driver) not in closings and run not in unknown:
            reason = "it is missing, though a later driver of the run has gone on, which writes it first"
            yield Check(_subject(run, driver), FALSE, reason)
    for writer in sorted(linked, key=repr):
        run, driver = driver_of(writer)
        closing = closings.get((run, driver))
        subject = f"run {run}: slot {writer[1]}, epoch {writer[2]}"
        if not linked[writer] and driver >= first_linked.get(run, driver + 1):
            reason = "its episodes have schema version 1, and its run had gone on to a later one"
            yield Check(subject, FALSE, reason)
        elif not linked[writer] and closing is not None and closing["how"] in (FINISHED, INTERRUPTED):
            yield Check(subject, FALSE, "its episodes have schema version 1, and its driver wrote its own closing")
        elif closing is not None and closing["how"] != NOT_COUNTED:
            named = {(one["slot"], one["epoch"]) for one in closing["writers"] or ()}
            if writer[1:] not in named:
                yield Check(subject, FALSE, "the closing of its driver does not name it")


def not_closed(writers: Collection[Writer], closings: Mapping[Driver, Mapping[str, Any]]) -> frozenset[Driver]:
    """Drivers of which nobody knows how many episodes they had archived when they ended."""
    counted = {driver for driver, row in closings.items() if row["how"] != NOT_COUNTED}
    return frozenset({driver_of(writer) for writer in writers} - counted)


def _subject(run: str, driver: int) -> str:
    return f"closings of run {run}, epoch {driver}"
