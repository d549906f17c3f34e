"""The confinement of one forked process, for good."""

from __future__ import annotations

import contextlib
import os

from selfplay.sandbox import limits, namespaces, seccomp
from selfplay.sandbox.record import Confinement


def confine(cpu_s: float = 120.0) -> Confinement:
    """Limits and confines this process for good and says what holds; to be called in a forked copy.

    cpu_s: processor time after which the kernel kills it, seconds.
    Raises `Unconfined` where not even the system calls can be filtered; the process is limited then, no more.
    """
    with contextlib.suppress(OSError):
        os.chdir("/")
    os.environ.clear()
    laid = limits.limit_copy(cpu_s)
    architecture = seccomp.lay()
    around = namespaces.current()
    return Confinement(architecture, 0, around.pid, laid, around)
