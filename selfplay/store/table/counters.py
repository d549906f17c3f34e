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


def numbers_of(slot: str) -> tuple[int, int]:
    """The numbers in the name of a slot of the factory: (3, 0) of p0003, and (3, 2) of p0003.2, that stands in for it.

    Raises `ValueError` for another name.
    """
    number, _, times = slot[1:].partition(".")
    return int(number), int(times or 0)


def player_seed(seed: int, slot: str, epoch: int) -> tuple[int, ...]:
    """Of the generator from which the writer of a slot draws the seeds of its games. seed: of the run.

    Epochs of p0003.1 begin where those of p0003 did, so its name is part of it.
    """
    number, times = numbers_of(slot)
    return (seed, number, epoch, times) if times else (seed, number, epoch)
