"""The C library, loaded once: copies of a process that has imported this find its functions ready."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
for _name in ("syscall", "prctl", "capget", "capset", "unshare", "mount"):
    getattr(LIBC, _name, None)  # looked up here, not in each copy


def last_error() -> str:
    """What the last call that failed says of it."""
    return os.strerror(ctypes.get_errno())
