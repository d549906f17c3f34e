"""What this process may use of its machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores, at least 1, that this process may use: of the machine, by its affinity and by the quota of its cgroup."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(_CGROUPS, Path("/proc/self/cgroup"))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(root: Path, mine: Path) -> float | None:
    """The smallest CPU quota, in cores, of a process's cgroup (version 2) and those above it; None without one.

    root: where cgroups are mounted. mine: the file that names the process's.
    """
    try:
        (name,) = [line.split("::", 1)[1] for line in mine.read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return None
    folder, found = root / name.strip("/"), []
    for place in (folder, *folder.parents):
        try:
            most, period = (place / "cpu.max").read_text().split()
        except (OSError, ValueError):
            most, period = "max", "1"
        if most.isdigit():
            found.append(int(most) / int(period))
        if place == root:
            break
    return min(found, default=None)
