"""Counters in the log of the episodes table: one a slot (`run_id/slot`), one a run (`run_id`)."""

from __future__ import annotations

#: Writer epochs of driver epoch e are e * 1000 … e * 1000 + 999: unique even for writers that never committed. A slot
#: that has had so many writers under one driver is given up for a new one (`Committer.register`): the next thousand
#: are the next driver's.
WRITERS_PER_DRIVER = 1000


def pack(epoch: int, number: int) -> int:
    """The value of a counter. epoch: of a writer, or of a driver. number: of its last block, or commit."""
    return epoch << 32 | number


def unpack(version: int | None) -> tuple[int, int]:
    """(epoch, number) of a counter in the log; (0, -1) where there is none."""
    return (0, -1) if version is None else (version >> 32, version & 0xFFFFFFFF)
