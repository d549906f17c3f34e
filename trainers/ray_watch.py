"""Notices when a process of Ray itself dies: the driver is told within moments, rather than cut off without a word.

Ray's core ends the driver's process when the raylet has gone, and after a minute in which nothing can be done when the
control store has. Who watches sees it first (Linux; the kernel reports a process's end through a descriptor of it).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator

import psutil

#: What a process is called by people, by a part of its command line.
_NAMES = {
    "gcs_server": "the control store (gcs_server)",
    "raylet/raylet": "the node manager (raylet)",
    "runtime_env/agent": "the agent of runtime environments",
    "ray::RuntimeEnvAgent": "the agent of runtime environments",
    "dashboard/agent": "the dashboard's agent",
    "ray::DashboardAgent": "the dashboard's agent",
}


class RayWatch:
    """Watches the Ray that this process has started. died: is given the name of what died, once, by another thread.

    pids: the watched processes, and what each is called.
    """

    def __init__(self, died: Callable[[str], None]) -> None:
        self._died = died
        self._stopped, self._stop = os.pipe()
        own = list(_own())
        self.pids = {pid: name for pid, _, name in own}
        self._watched = {descriptor: name for _, descriptor, name in own}
        self._thread = threading.Thread(target=self._work, name="ray-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """From now on they may end."""
        os.write(self._stop, b"x")
        self._thread.join()
        for descriptor in (self._stopped, self._stop, *self._watched):
            os.close(descriptor)

    def _work(self) -> None:
        poll = select.poll()
        for descriptor in (self._stopped, *self._watched):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if self._stopped not in ready:
            self._died(self._watched[ready[0]])


def _own() -> Iterator[tuple[int, int, str]]:
    """The pid of each process to watch, a descriptor of it, and its name."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            line = " ".join(process.cmdline()).replace(".py", "")
            name = next((name for part, name in _NAMES.items() if part in line.split(" --")[0]), None)
            if name is not None and hasattr(os, "pidfd_open"):
                yield process.pid, os.pidfd_open(process.pid), name
