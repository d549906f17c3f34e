"""Ends a local Ray when the process that started it is gone, however it went, and says the last word for it.

Run as a script, beside the driver: `ray_guard.py PID SENTENCE`; the sentence goes to standard error.

Ray does most of it by itself. But an agent whose raylet was killed stays for a minute, to report that to a control
store that is gone, too; and a driver killed while Ray starts leaves what has just been started.

Standard input tells: "bye" means that the driver has shut Ray down in order; "said", that it has not, but has said so
itself; the end of it without a line, that the driver died, or that Ray's core has ended it, without a word. PID is 0
where the Ray is somebody else's: nothing is ended then. A process belongs to the session if it writes to a file in the
session's folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator


def members(driver: int) -> Iterator[int]:
    """Processes, but for the driver, that write to files of the driver's Ray sessions (their names end in its pid)."""
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):
            if int(pid) not in (driver, os.getpid()) and any(_writes(pid, fd, driver) for fd in _open(pid)):
                yield int(pid)


def _open(pid: str) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def _writes(pid: str, fd: str, driver: int) -> bool:
    try:
        folders = os.readlink(f"/proc/{pid}/fd/{fd}").split("/")
        if not any(name.startswith("session_") and name.endswith(f"_{driver}") for name in folders):
            return False
        with open(f"/proc/{pid}/fdinfo/{fd}") as info:
            flags = next(line for line in info if line.startswith("flags:"))
        return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, StopIteration):
        return False


def main() -> None:
    driver, sentence = int(sys.argv[1]), sys.argv[2]
    word = sys.stdin.readline().strip()
    in_order = word == "bye"
    if not word:
        leave = "\x1b[?1049l\x1b[?25h" if sys.stderr.isatty() else ""  # the driver's screen
        with contextlib.suppress(OSError):
            print(f"{leave}error: {sentence}", file=sys.stderr, flush=True)
    if not driver:
        return
    for wait in (0.0,) if in_order else (0.0, 1.0, 1.0, 2.0):  # what was just being started appears a little later
        time.sleep(wait)
        for pid in members(driver):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
