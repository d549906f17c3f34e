"""Ends a local Ray when the process that started it is gone, however it went, and says the last word for it.

Run as a script, beside the driver: `ray_guard.py PID ADVICE`; what is said goes to standard error, ADVICE at its end.

Ray does most of it by itself. But an agent whose raylet was killed stays for a minute, to report that to a control
store that is gone, too; and a driver killed while Ray starts leaves what has just been started.

Standard input tells, a line each: "watch PID NAME", that this process of Ray should outlive the run, and "agent PID
NAME", that this one does not end at once with the driver, as the others do; "asked", that the run was asked to end;
"leaving", that Ray is being shut down; "bye", that this is done; "said", that it is not, but that the driver has said
so itself. Where it ends without one of the last two, the driver has died without a word, or Ray's core has ended it,
which it does within milliseconds of the raylet's death: often before a thread of the driver has had its turn, so that
it is seen here which of them died first. PID is 0 where the Ray is somebody else's: nothing is ended then. A process
belongs to the session if it writes to a file in the session's folder.
"""

from __future__ import annotations

import contextlib
import os
import select
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


def ray_died(name: str, advice: str) -> str:
    """What is said where a process of Ray has ended under the run."""
    return f"Ray has died under the run: {name} has ended (killed, or out of memory?); {advice}"


def ended_with_ray(advice: str) -> str:
    """What is said where the run was asked to end, and Ray was gone before it had."""
    return f"the run was asked to end, and Ray was ended with it, before everything could be saved in order; {advice}"


class Driver:
    """What is known of the driver from what it tells, and from which of its Ray's processes have ended."""

    def __init__(self, pid: int, advice: str) -> None:
        self.pid = pid
        self.advice = advice
        self.word = ""
        self._asked = self._leaving = False
        self._died = ""
        self._watched: dict[int, tuple[str, bool]] = {}  # descriptor -> name, whether it ends at once with the driver

    def last_word(self, stdin: int = 0) -> str:
        """What is to be said for it when it is gone; "" where nothing is. Returns when it is gone, or has said so."""
        told, poll = b"", select.poll()
        poll.register(stdin, select.POLLIN)
        while not self.word:
            ready = {descriptor for descriptor, _ in poll.poll()}
            for descriptor in ready - {stdin}:
                poll.unregister(descriptor)
                name, with_driver = self._watched[descriptor]
                self._has_died(name, first=stdin not in ready or not with_driver, with_driver=with_driver)
            if stdin in ready:
                more = os.read(stdin, 4096)
                if not more:
                    return self._sentence()
                *lines, told = (told + more).split(b"\n")
                for line in lines:
                    for descriptor in self._hears(line.decode("utf-8", "replace")):
                        poll.register(descriptor, select.POLLIN)
        return ""

    def _hears(self, line: str) -> Iterator[int]:
        """Takes in a line; gives the descriptor of a process that is to be watched from now on."""
        word, _, rest = line.partition(" ")
        if word in ("bye", "said"):
            self.word = word
        elif word == "asked":
            self._asked = True
        elif word == "leaving":
            self._leaving = True
        elif word in ("watch", "agent") and hasattr(os, "pidfd_open"):
            pid, _, name = rest.partition(" ")
            try:
                descriptor = os.pidfd_open(int(pid))
            except OSError:
                self._has_died(name, first=True, with_driver=word == "watch")
            else:
                self._watched[descriptor] = name, word == "watch"
                yield descriptor

    def _has_died(self, name: str, first: bool, with_driver: bool) -> None:
        """first: the driver was not seen to be gone before. with_driver: whether its end, which takes a moment, ends
        this one, too."""
        ended_with_it = with_driver and self.pid > 0 and _exiting(self.pid)
        if first and not self._died and not self._leaving and not ended_with_it:
            self._died = name

    def _sentence(self) -> str:
        if self._asked and self._died:
            return ended_with_ray(self.advice)
        if self._died:
            return ray_died(self._died, self.advice)
        return f"the process of the run was ended from outside, or by Ray; {self.advice}"


def _exiting(pid: int) -> bool:
    """Whether a process has begun to end, or is gone: PF_EXITING of its flags (Linux, proc(5))."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return bool(int(stat.read().rpartition(")")[2].split()[6]) & 0x4)
    except (OSError, ValueError, IndexError):
        return True


def main() -> None:
    own, advice = int(sys.argv[1]), sys.argv[2]
    driver = Driver(own, advice)
    sentence = driver.last_word()
    if sentence and advice:
        leave = "\x1b[?1049l\x1b[?25h" if sys.stderr.isatty() else ""  # the driver's screen
        with contextlib.suppress(OSError):
            print(f"{leave}error: {sentence}", file=sys.stderr, flush=True)
    if not own:
        return
    for wait in (0.0,) if driver.word == "bye" else (0.0, 1.0, 1.0, 2.0):  # what was being started appears later
        time.sleep(wait)
        for pid in members(own):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
