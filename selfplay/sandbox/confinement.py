"""The confinement of one forked process, for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct

from selfplay.sandbox import landlock, limits, namespaces, seccomp
from selfplay.sandbox.libc import LIBC, last_error
from selfplay.sandbox.record import Confinement, Unconfined

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION, _CAP_DAC_READ_SEARCH = 0x20080522, 1 << 2


class _Prepared:
    """What copies inherit from a server that is prepared."""

    readable: tuple[landlock.Readable, ...] = ()


def prepare() -> None:
    """Works out in the server, once all is loaded, what copies may read; without it each copy does, for some time."""
    _Prepared.readable = landlock.needed()


def confine(cpu_s: float | None = None) -> Confinement:
    """Limits and confines this process for good and says what holds; to be called in a forked copy.

    cpu_s: processor time after which the kernel kills it, seconds; None for no such limit.
    Raises `Unconfined` where system calls cannot be filtered, or where nothing would keep the process from reading the
    memory and the environment of the user's other processes. It may be half confined then, and must end.
    """
    seccomp.architecture()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise Unconfined(f"it has {threads} threads; a process is confined right after a fork, while it has one")
    with contextlib.suppress(OSError):
        os.chdir("/")
    os.environ.clear()
    limits.one_thread()
    if LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Unconfined("the kernel does not let a process give up new privileges")
    laid = limits.limit_copy(cpu_s)
    known = landlock.lay(_Prepared.readable or landlock.needed())
    around = namespaces.current()
    if not known and not around.user:
        raise Unconfined(
            "it could read the memory and the environment of other processes: this kernel has no Landlock, and "
            + (around.missing or "there is no user namespace")
        )
    # Root keeps the right to read what others own, as imports may need it; Landlock says where.
    _keep_capabilities(_CAP_DAC_READ_SEARCH if known else 0)
    LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if namespaces.server_pid() not in (0, os.getppid()):
        os._exit(70)  # the server died before the kernel was asked to pass that on
    return Confinement(seccomp.lay(), known, around.pid, laid, around)


def _keep_capabilities(kept: int) -> None:
    """Gives up all capabilities but those given that the process has."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    if LIBC.capget(ctypes.c_char_p(header), held) != 0:
        raise Unconfined(f"its capabilities cannot be read: {last_error()}")
    permitted = struct.unpack("6I", held.raw)[1] & kept
    if LIBC.capset(ctypes.c_char_p(header), struct.pack("6I", permitted, permitted, 0, 0, 0, 0)) != 0:
        raise Unconfined(f"its capabilities cannot be given up: {last_error()}")
