"""The fork server: a process that loads a task once, and starts a copy of itself for each question.

It holds one socket to its owner. A frame on it asks for a copy and brings along, as a file descriptor, the copy's own
end of a socket pair that the owner has made; the server hands it on and keeps nothing of it. So the server never holds
what is asked or answered, and a copy holds nothing but its own socket. The server reports each copy's exit status, and
kills those that take too long. It ends with its owner.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

from selfplay import sandbox
from selfplay.contract import TaskSpec
from selfplay.environments import author
from selfplay.environments.isolation import wire
from selfplay.sandbox.libc import close_from

#: A frame from the owner: what to do, the number of the copy, its seconds of time (0: no limit).
REQUEST = struct.Struct("!BQd")
#: A frame to the owner: the number of a copy that has ended, and its exit status, negative for a signal.
REPORT = struct.Struct("!Qi")
#: Before the first frame each side says one thing: its length in bytes, then JSON.
LENGTH = struct.Struct("!I")
ONE_CALL, WORKER, KILL = 0, 1, 2
#: Exit statuses of copies that did not come to an answer: out of time; could not be started; broke.
TIMED_OUT, NOT_STARTED, BROKEN = 1_000, 1_001, 70
_LINK = 3
#: Processor time that a copy may take beyond its time by the clock, which ends it first, seconds.
_SPARE_S = 10.0


@dataclass
class _Copies:
    """Copies that live: pid -> number, number -> pid and when its time is over (`time.monotonic`)."""

    numbers: dict[int, int] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)

    def kill(self, number: int) -> None:
        pid = self.pids.get(number)
        if pid is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def expire(self) -> None:
        """Kills those whose time is over."""
        now = time.monotonic()
        for number in [number for number, end in self.ends.items() if end <= now]:
            del self.ends[number]
            self.killed.add(number)
            self.kill(number)

    def wait_ms(self) -> int | None:
        """Until the next one's time is over; None where there is none."""
        if not self.ends:
            return None
        return max(0, int(1e3 * (min(self.ends.values()) - time.monotonic())) + 1)


def serve(descriptor: int) -> None:
    """The server's main function. descriptor: of its socket to the owner."""
    sandbox.enter_namespaces()  # it must be the only thread, and hold nothing yet
    control = socket.socket(fileno=descriptor)
    told = wire.decode(_exactly(control, LENGTH.unpack(_exactly(control, LENGTH.size))[0]))
    try:
        spec = _load(told["reference"], told["text"])
    except Exception as error:
        _say(control, {"failed": f"{type(error).__name__}: {error}"[:500]})
        sys.exit(1)
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sandbox.prepare()
    gc.collect()
    gc.freeze()  # a copy shares what is loaded; collecting in it would copy that
    gc.disable()
    _say(control, {"ready": True})
    _work(control, woken, spec, told["confined"])


def _load(reference: str, text: str | None) -> TaskSpec:
    from selfplay.environments import registry

    spec = registry.unpack_any(registry.Portable(reference, text))
    assert isinstance(spec, TaskSpec)
    return spec


def _work(control: socket.socket, woken: int, spec: TaskSpec, confined: bool) -> None:
    """Starts, awaits and kills copies until the owner is gone."""
    copies = _Copies()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    try:
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(copies.wait_ms())}
            if control.fileno() in ready:
                frame, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 1)
                if len(frame) < REQUEST.size:
                    return
                _do(control, frame, descriptors, copies, spec, confined)
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
            _bury(control, copies)
            copies.expire()
    except OSError:  # the owner is gone
        return
    finally:
        for number in list(copies.pids):
            copies.kill(number)


def _do(
    control: socket.socket, frame: bytes, descriptors: list[int], copies: _Copies, spec: TaskSpec, confined: bool
) -> None:
    what, number, seconds = REQUEST.unpack(frame)
    if what == KILL:
        copies.kill(number)
        return
    (link,) = descriptors
    try:
        pid = os.fork()
    except OSError:
        os.close(link)
        control.sendall(REPORT.pack(number, NOT_STARTED))
        return
    if pid == 0:
        _copy(spec, link, confined, what == WORKER)
    os.close(link)
    copies.numbers[pid], copies.pids[number] = number, pid
    if seconds:
        copies.ends[number] = time.monotonic() + seconds


def _bury(control: socket.socket, copies: _Copies) -> None:
    """Reports the copies that have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = copies.numbers.pop(pid, None)
        if number is None:
            continue
        del copies.pids[number]
        copies.ends.pop(number, None)
        code = TIMED_OUT if number in copies.killed else os.waitstatus_to_exitcode(status)
        copies.killed.discard(number)
        control.sendall(REPORT.pack(number, code))


def _copy(spec: TaskSpec, link: int, confined: bool, worker: bool) -> None:
    """In the copy, which never returns: answers its question, or questions without end."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(link, _LINK)  # 0, 1 and 2 are nothing
        close_from(_LINK + 1)
        _answer_all(spec, confined) if worker else _answer_one(spec, confined)
        os._exit(0)
    finally:
        os._exit(BROKEN)


def _answer_one(spec: TaskSpec, confined: bool) -> None:
    parts = []
    while part := os.read(_LINK, 2**20):
        parts.append(part)
    try:
        sandbox.confine(spec.timeout_s + _SPARE_S) if confined else sandbox.limit()
    except sandbox.Unconfined as error:
        _write(wire.unread(spec, str(error)))
        return
    _write(wire.answered(spec, b"".join(parts)))


def _answer_all(spec: TaskSpec, confined: bool) -> None:
    """A line a question, a line an answer. Where it cannot be confined, it has limits and reads no model's text.

    One problem is made before the copy is confined: what the author's code imports when it is first needed may want to
    look at its folder for settings, which a confined copy cannot.
    """
    unconfined = ""
    sandbox.limit()
    with contextlib.suppress(Exception):
        author.pose(spec, 0, spec.difficulties[0])
    try:
        sandbox.confine() if confined else sandbox.limit()
    except sandbox.Unconfined as error:
        unconfined = str(error)
        sandbox.limit()
    with os.fdopen(os.dup(_LINK), "rb", 2**16) as source:
        for line in source:
            _write(wire.answered(spec, line, unconfined) + b"\n")


def _write(said: bytes) -> None:
    while said:
        said = said[os.write(_LINK, said) :]


def _exactly(link: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = link.recv(min(2**20, size - len(found)))
        if not part:
            sys.exit(1)
        found += part
    return bytes(found)


def _say(control: socket.socket, value: object) -> None:
    said = wire.encode(value)
    control.sendall(LENGTH.pack(len(said)) + said)
