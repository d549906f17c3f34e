"""A run is held by one driver at a time, by a lease in the run's folder; each holding has its own epoch.

Numbered objects `lease/000007.json` are made by put-if-absent, so every epoch belongs to one driver for ever. A
thread renews a heartbeat object beside it. Who comes later may take the run when the heartbeat is old, when it was
released, or when the holder was a process of this machine that has ended; who waits is told at the holder's next
heartbeat that it lives, or takes the run when none has come. A driver that was only thought dead is harmless: its epoch
is lower, the committer refuses it, and its own heartbeat tells it. Where the object that names the holder is damaged,
only its heartbeat counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfplay.errors import Damaged, UserError
from selfplay.io import sealed, storage

HEARTBEAT_S = 5.0
EXPIRES_S = 30.0
LOOK_S = 1.0
#: Leases of so many holders are kept. One who takes an epoch that was forgotten, as it has looked long ago, is a driver
#: that was replaced like any other: its epoch is lower than the newest.
KEPT = 100


class Vanished(UserError):
    """The folder of a run is not there any more, while its driver still works."""

    def __init__(self, run_uri: str) -> None:
        super().__init__(run_uri)
        self.run_uri = run_uri

    def __str__(self) -> str:
        return (
            f"{self.run_uri}/lease has vanished while the run was using it (was the folder deleted, moved or "
            "unmounted?), so the run has stopped; put the folder back to continue it, or begin a new run"
        )


@dataclass(frozen=True)
class Holder:
    """Who holds or held a run.

    born: when the process began, as the kernel counts, so that a reused pid is told. space: the namespace in which the
    pid counts: containers may share a host's name. token: of this holding alone.
    """

    epoch: int
    owner: str
    host: str
    pid: int
    born: str
    space: str = ""
    token: str = ""

    @property
    def here(self) -> bool:
        """Whether this machine can tell if the process lives."""
        return (self.host, self.space) == (socket.gethostname(), _space())

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine, and has ended."""
        return self.here and born(self.pid) != self.born

    def __str__(self) -> str:
        return f"{self.owner} (process {self.pid} on {self.host})"


class Lease:
    """A held run. `epoch` rises with every holding. Leave with `release`, or as a context manager."""

    def __init__(self, run_uri: str, holder: Holder) -> None:
        self.run_uri = run_uri
        self.holder = holder
        self.taken = threading.Event()  # a later driver has the run: whoever hears of it should stop
        self.vanished = threading.Event()  # the run's folder is not there any more: nothing is to be written
        self.seen = time.time()  # when the folder was there for certain, by this machine's clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        return self.holder.epoch

    def lost(self) -> bool:
        """Whether a later driver has taken the run (asks the storage). Raises `Vanished` where its folder is gone."""
        if not self.taken.is_set():
            now, newest = time.time(), _newest(self.run_uri)
            if newest < self.epoch:
                self.vanished.set()
                raise Vanished(self.run_uri)
            self.seen = now
            if newest > self.epoch:
                self.taken.set()
        return self.taken.is_set()

    def release(self) -> None:
        """Gives the run back; the next driver need not wait, unless the storage is away. Twice does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT_S)
        with contextlib.suppress(UserError, OSError):  # it would hide what ended the run
            self.lost()
            storage.write(_object(self.run_uri, self.epoch, "released"), b"{}")

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.lost()
                storage.write(_object(self.run_uri, self.epoch, "heartbeat"), b"{}")
            except (UserError, OSError):
                continue  # the storage may come back; if it does not, the lease runs out by itself


def acquire(run_uri: str, owner: str, wait: Callable[[str], None] | None = None) -> Lease:
    """Takes the run. Raises `UserError` if it is held.

    owner: who asks, for messages, such as the command. wait: where the holder may be dead, waits for a sign of life,
    and calls this every second with a sentence for people; None: does not wait.
    """
    run_uri = storage.normalise(run_uri)
    while True:
        newest = _newest(run_uri)
        if newest:
            _refuse_if_held(run_uri, newest, wait)
        pid = os.getpid()
        holder = Holder(newest + 1, owner, socket.gethostname(), pid, born(pid), _space(), uuid.uuid4().hex)
        storage.write(_object(run_uri, holder.epoch, "heartbeat"), b"{}")
        mine = storage.create(_object(run_uri, holder.epoch), sealed.dumps(asdict(holder)).encode(), durable=True)
        if mine or _read(run_uri, holder.epoch) == holder:  # the word that it was written may have been lost
            _forget(run_uri, holder.epoch - KEPT)
            return Lease(run_uri, holder)


def _forget(run_uri: str, epoch: int) -> None:
    """Deletes what holders up to an epoch have left."""
    for name in storage.names(storage.join(run_uri, "lease")) if epoch > 0 else ():
        if (stem := name.split(".")[0]).isdigit() and int(stem) <= epoch:
            storage.delete(storage.join(run_uri, "lease", name))


def holder_of(run_uri: str) -> Holder | None:
    """The last driver that took the run, None if there was none or its lease is damaged."""
    newest = _newest(storage.normalise(run_uri))
    return _read(storage.normalise(run_uri), newest) if newest else None


def _refuse_if_held(run_uri: str, epoch: int, wait: Callable[[str], None] | None = None) -> None:
    holder, beat = _read(run_uri, epoch), _last_beat(run_uri, epoch)
    first, age = beat, _age(run_uri, beat)
    here, gone = (holder.here, holder.gone) if holder is not None else (False, False)
    who = str(holder or f"a driver that cannot be identified ({_object(run_uri, epoch)} is damaged)")
    while not (storage.exists(_object(run_uri, epoch, "released")) or gone or age > EXPIRES_S):
        if wait is None or beat > first or here:
            raise UserError(
                f"{run_uri} is held by {who}, last heard from {age:.0f} s ago; "
                f"stop it, or wait until {EXPIRES_S:.0f} s have passed since then"
            )
        wait(f"waiting up to {EXPIRES_S:.0f} s for a sign of life from {who}, which may still hold the run")
        time.sleep(LOOK_S)
        beat = _last_beat(run_uri, epoch)
        age = _age(run_uri, beat)


def _last_beat(run_uri: str, epoch: int) -> float:
    """When the last heartbeat came, by the clock of the storage; minus infinity if none did."""
    name = _object(run_uri, epoch, "heartbeat")
    beats = [entry.modified for entry in storage.entries(storage.join(run_uri, "lease")) if entry.uri == name]
    return max(beats, default=float("-inf"))


def _age(run_uri: str, beat: float) -> float:
    """Seconds since then, by the same clock."""
    return max(0.0, storage.server_time(storage.join(run_uri, "lease")) - beat)


def _object(run_uri: str, epoch: int, suffix: str = "") -> str:
    return storage.join(run_uri, "lease", f"{epoch:06d}{'.' + suffix if suffix else ''}.json")


def _newest(run_uri: str) -> int:
    """The highest epoch that was ever taken; 0 if none."""
    epochs = [int(stem) for name in storage.names(storage.join(run_uri, "lease")) if (stem := name[:-5]).isdigit()]
    return max(epochs, default=0)


def _read(run_uri: str, epoch: int) -> Holder | None:
    """Who took the epoch; None where that cannot be read."""
    try:
        values: dict[str, Any] = sealed.read(_object(run_uri, epoch))
        return Holder(**values)
    except (Damaged, TypeError, FileNotFoundError):
        return None


def _space() -> str:
    """The namespace in which this process's pid counts; "" for systems without."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def born(pid: int) -> str:
    """When the process began, in clock ticks since boot and with the boot's id; "" if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return _alive_elsewhere(pid)
    return "" if status[0] == "Z" else f"{boot}/{status[19]}"


def _alive_elsewhere(pid: int) -> str:
    """For systems without /proc: "alive" or ""."""
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
