"""A bound on the memory of a command that reads other people's files."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

#: Files of control groups that hold the limit of a container, v2 and v1.
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def bound() -> None:
    """From now on this process, and what it starts, gets no more memory than the machine or its container has.

    A file that unpacks to more than its footer says then ends in a `MemoryError` of this process; without a bound the
    kernel would choose what to end. Where the system does not know such a bound nothing is changed.
    """
    most = capacity()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft in (resource.RLIM_INFINITY, -1) or soft > most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def capacity() -> int:
    """Bytes of memory of this machine, or of the container where that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max", or another kind of control group
            found.append(int(file.read_text()))
    return min(found)
