"""What a run weighs."""

from __future__ import annotations

import psutil


def proportional_bytes() -> int | None:
    """Memory of this process and of all that came of it, in bytes; with Ray and its object store, if started here.

    Proportional set sizes: a page that several processes share counts once in the sum. Processes that end meanwhile,
    or whose memory may not be read, count nothing. None where the system knows no such number.
    """
    total: int | None = None
    mine = psutil.Process()
    for process in (mine, *mine.children(recursive=True)):
        try:
            total = (total or 0) + process.memory_full_info().pss
        except (psutil.Error, AttributeError):  # gone meanwhile; or a system that knows no such number
            continue
    return total
