"""Notices when a process of Ray itself dies: the driver is told within moments, rather than cut off without a word.

Ray's core ends the driver's process when the raylet has gone, and after a minute in which nothing can be done when the
control store has. Who watches sees it first (Linux; the kernel reports a process's end through a descriptor of it).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

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


#: Agents start after the raylet, on a busy machine long after: so long (s) they are looked for, so often (s).
_LOOK_FOR_S, _LOOK_EVERY_S = 60.0, 1.0


class RayWatch:
    """Watches the Ray that this process has started.

    died: is given the name of what died, once, by another thread. tell: is given a line of `ray_guard` for each.
    """

    def __init__(self, died: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self._died, self._tell = died, tell
        self._stopped, self._stop = os.pipe()
        self._watched: dict[int, str] = {}  # descriptor -> name
        self._known: set[int] = set()
        self._look()
        self._thread = threading.Thread(target=self._work, name="ray-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """From now on they may end."""
        os.write(self._stop, b"x")
        self._thread.join()
        for descriptor in (self._stopped, self._stop, *self._watched):
            os.close(descriptor)

    def _work(self) -> None:
        until = time.monotonic() + _LOOK_FOR_S
        while True:
            poll = select.poll()
            for descriptor in (self._stopped, *self._watched):
                poll.register(descriptor, select.POLLIN)
            looks = len(set(self._watched.values())) < len(set(_NAMES.values())) and time.monotonic() < until
            ready = [descriptor for descriptor, _ in poll.poll(1000 * _LOOK_EVERY_S if looks else None)]
            if ready:
                break
            self._look()
        if self._stopped not in ready:
            self._died(self._watched[ready[0]])

    def _look(self) -> None:
        """Finds processes to watch that are not yet."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline()).replace(".py", "")
                name = next((name for part, name in _NAMES.items() if part in line.split(" --")[0]), None)
                agent = name is not None and "agent" in name
                if agent == (process.ppid() == os.getpid()):  # the raylet, about to become an agent
                    continue
                if name is not None and process.pid not in self._known and hasattr(os, "pidfd_open"):
                    self._watched[os.pidfd_open(process.pid)] = name
                    self._known.add(process.pid)
                    self._tell(f"{'agent' if agent else 'watch'} {process.pid} {name}")
