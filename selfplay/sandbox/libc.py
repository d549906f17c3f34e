"""The C library, loaded once: copies of a process that has imported this find its functions ready."""

from __future__ import annotations

import ctypes
import os
import sys

_CLOSE_RANGE = 436  # on every architecture
LIBC = ctypes.CDLL(None, use_errno=True)
for _name in ("syscall", "prctl", "capget", "capset", "unshare", "mount"):
    getattr(LIBC, _name, None)  # looked up here, not in each copy


def last_error() -> str:
    """What the last call that failed says of it."""
    return os.strerror(ctypes.get_errno())


def close_from(first: int) -> None:
    """Closes every descriptor from this one on.

    `os.closerange` tries them one by one where Python was built for kernels before 5.9, and containers may allow a
    billion.
    """
    every = ctypes.c_uint(0xFFFFFFFF)
    if sys.platform != "linux" or LIBC.syscall(_CLOSE_RANGE, ctypes.c_uint(first), every, 0) != 0:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
