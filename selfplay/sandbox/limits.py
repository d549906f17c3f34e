"""Resource limits of a process that judges: memory, processor time, files and processes."""

from __future__ import annotations

import contextlib
import math
import os
import resource

#: Address space, bytes.
MEMORY_BYTES = 4 * 2**30
#: Open files, besides those that are open already.
OPEN_FILES = 64
#: Libraries of linear algebra end the process where they may not start the threads that they want.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")


def one_thread() -> None:
    """Tells numeric libraries that are loaded from now on to work in the thread that calls them."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))


def limit() -> None:
    """Limits what this process may use, for good: address space, written files, core dumps."""
    lay({"RLIMIT_AS": MEMORY_BYTES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0})


def limit_copy(cpu_s: float | None) -> tuple[tuple[str, int], ...]:
    """All limits of a confined copy, for good. cpu_s: processor time until it is killed, seconds; None for no limit."""
    limits = {
        "RLIMIT_AS": MEMORY_BYTES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_NPROC": 0,
    }
    return lay(limits if cpu_s is None else {**limits, "RLIMIT_CPU": max(1, math.ceil(cpu_s))})


def lay(limits: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Lowers each limit, never raising one that is lower already; returns what now holds, by name."""
    laid = []
    for name, most in limits.items():
        what = getattr(resource, name)
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit the address space
            resource.setrlimit(what, (least, least))
            laid.append((name, least))
    return tuple(laid)
