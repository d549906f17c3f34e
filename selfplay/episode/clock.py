"""The time of day that episodes are dated by: within a process it never goes back.

Clocks of machines are set now and then, also back, and while an answer is being written. An episode would then end
before it began, and before the one that was sealed before it, and be called false.
"""

from __future__ import annotations

import threading
import time

_lock = threading.Lock()
_ahead = float("-inf")  # of the steady clock, the furthest that the machine's clock has been seen


def now() -> float:
    """Seconds since 1970, UTC, by the machine's clock; where that was set back, by the steady clock since then."""
    global _ahead
    with _lock:
        steady = _steady()
        _ahead = max(_ahead, time.time() - steady)
        return _ahead + steady


def _steady() -> float:
    """Seconds since some moment; where the system can tell, those that the machine slept are among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
