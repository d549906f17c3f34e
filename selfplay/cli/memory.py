"""A bound on the memory of a command that reads other people's files."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

#: Folders of control groups, v2 and v1, with their files: the limit of a container, what it uses, and of what kinds.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
#: The least that a command gets, bytes: enough for an honest corpus, on a machine that swaps.
LEAST = 2**30


def bound() -> None:
    """From now on this process, and what it starts, gets no more memory than the machine has left for it.

    A file that unpacks to more than its footer says then ends in a `MemoryError` of this process; without a bound the
    kernel would choose what to end. Where the system does not know such a bound nothing is changed.
    """
    most = max(LEAST, available())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft in (resource.RLIM_INFINITY, -1) or soft > most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def available() -> int:
    """Bytes of memory that this machine, or the container where that has less, can give without ending a process."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        if left := re.search(r"^MemAvailable: +([0-9]+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE):
            found.append(1024 * int(left[1]))
    for folder, limit, used, cached in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max", or another kind of control group
            kinds = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            in_use = int((folder / used).read_text()) - int(kinds.get(cached, 0))
            found.append(int((folder / limit).read_text()) - in_use)
    return min(found)
