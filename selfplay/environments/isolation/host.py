"""The owner's side of a fork server: each question goes to a copy of its own, and answers come as they are ready."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from selfplay import surroundings
from selfplay.contract import TaskSpec
from selfplay.environments.author import CRASH, TIMEOUT, Failure
from selfplay.environments.isolation import wire
from selfplay.environments.isolation.links import Worker, close, receive, send
from selfplay.environments.isolation.server import (
    KILL,
    LENGTH,
    NOT_STARTED,
    ONE_CALL,
    REPORT,
    REQUEST,
    TIMED_OUT,
    WORKER,
)

#: How long the server may take to load the task, and to say that a copy has ended after its time was over, seconds.
START_S = 60.0
GRACE_S = 10.0
#: What reads no text that a model wrote may take so many times `timeout_s`.
_MAKING = 10.0
_CODE = "from selfplay.environments.isolation.server import serve; serve({})"
_KEPT = ("PATH", "LANG", "PYTHONPATH", "HOME")


@dataclass
class _Question:
    """A question under way. link: our end of its socket pair. left: of the question, not yet written. status: how its
    copy ended, None while it has not. ended: whether it has closed its end. until: when the server must have spoken.
    """

    number: int
    name: str
    left: memoryview
    link: socket.socket | None = None
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False
    status: int | None = None
    until: float = 0.0


class Host:
    """A fork server for one task, started when it is first needed. Not for several threads at once.

    width: most copies at once. confined: without it copies are limited only, and code in an answer is seen to run: for
    `check-env`.
    """

    def __init__(self, spec: TaskSpec, confined: bool = True, width: int = 1) -> None:
        self._spec, self._confined, self._width = spec, confined, width
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._reports = bytearray()
        self._numbers = 0
        self._waiting: deque[_Question] = deque()
        self._running: dict[int, _Question] = {}
        self._done: list[tuple[int, Any]] = []
        self._worker: Worker | None = None

    # -- questions that each get a copy --------------------------------------------------------------------------

    def submit(self, name: str, arguments: list[Any]) -> int:
        """Asks for one of `wire.CALLS`; a number by which `ready` gives the answer: a value, or a `Failure`."""
        self._numbers += 1
        self._waiting.append(_Question(self._numbers, name, memoryview(wire.encode([name, arguments]))))
        self._fill()
        return self._numbers

    def ready(self, seconds: float) -> list[tuple[int, Any]]:
        """The (number, answer) pairs that are there; waits up to so many seconds for the first."""
        until = time.monotonic() + seconds
        while True:
            self._fill()
            self._listen(0.0 if self._done else max(0.0, until - time.monotonic()))
            if self._done or not (self._running or self._waiting) or time.monotonic() >= until:
                done, self._done = self._done, []
                return done

    def call(self, name: str, arguments: list[Any]) -> Any:
        """One question and its answer, while no other is under way. Raises `Failure`."""
        assert not self._running and not self._waiting
        number = self.submit(name, arguments)
        while not (done := self.ready(3600.0)):
            pass
        assert done[0][0] == number
        return _value(done[0][1])

    def forget(self) -> None:
        """Kills every copy that is at work on a question; none will be answered."""
        self._waiting.clear()
        self._done.clear()
        for one in self._running.values():
            self._order(KILL, one.number, 0.0)
            close(one.link)
        self._running.clear()

    def make(self, name: str, arguments: list[Any], calls: int = 1) -> Any:
        """The same of the worker: one copy that lives on, for what reads no text that a model wrote.

        calls: of the author's function that the question takes; each has its time. Raises `Failure`. A worker that has
        died is replaced, and asked once more: it may have used up its limits.
        """
        question = wire.encode([name, arguments]) + b"\n"
        seconds = _MAKING * self._spec.timeout_s * calls
        for attempt in (1, 2):
            self._start()
            if self._worker is None:
                self._numbers += 1
                ours, theirs = socket.socketpair()
                self._worker = Worker(ours, self._numbers)
                self._order(WORKER, self._numbers, 0.0, theirs)
                theirs.close()
            try:
                return _value(wire.read(self._spec, name, self._worker.ask(question, seconds)))
            except TimeoutError:
                self._dismiss()
                raise self._failure(name, TIMEOUT, f"took longer than {seconds:g} s") from None
            except (OSError, EOFError):
                self._dismiss()
                if attempt == 2:
                    raise self._failure(name, CRASH, "killed its process") from None
            except ValueError:
                self._dismiss()
                raise self._failure(name, CRASH, "gave a malformed answer") from None
        raise AssertionError

    def close(self) -> None:
        """Ends the server and all copies."""
        self.forget()
        self._dismiss()
        close(self._control)
        self._control = None
        if self._server is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._server.pid, 9)
            self._server.wait()
            self._server = None

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # then this module may be half gone already, and the server ends with the process
            self.close()

    # -- the server ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Starts the server where none runs. Raises `Failure` where it cannot load the task."""
        if self._server is not None and self._server.poll() is None:
            return
        self._end(CRASH, "lost its server")
        from selfplay.environments import registry

        portable = registry.pack(self._spec)
        told = {"reference": portable.reference, "text": portable.text, "confined": self._confined}
        ours, theirs = socket.socketpair()
        with theirs:
            nothing, descriptor = subprocess.DEVNULL, theirs.fileno()
            self._server = subprocess.Popen(
                surroundings.command(_CODE.format(descriptor)),
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        self._control, until = ours, time.monotonic() + START_S
        said = wire.encode(told)
        try:
            send(ours, memoryview(LENGTH.pack(len(said)) + said), until)
            (size,) = LENGTH.unpack(receive(ours, LENGTH.size, until))
            answer = wire.decode(receive(ours, min(size, 2**16), until))
        except TimeoutError:
            self.close()
            raise Failure(CRASH, f"{self._spec.id}: loading the task took longer than {START_S:g} s") from None
        except (OSError, EOFError, ValueError):
            self.close()
            raise Failure(CRASH, f"{self._spec.id}: the process that should load the task died") from None
        if "failed" in answer:
            self.close()
            raise Failure(CRASH, f"{self._spec.id}: the task could not be loaded: {answer['failed']}")

    def _order(self, what: int, number: int, seconds: float, link: socket.socket | None = None) -> None:
        """A frame to the server. One that does not read is of no more use: what is under way fails by its time."""
        if self._control is None:
            return
        frame = REQUEST.pack(what, number, seconds)
        with contextlib.suppress(OSError):
            if link is None:
                self._control.send(frame, socket.MSG_DONTWAIT)
            else:
                socket.send_fds(self._control, [frame], [link.fileno()], socket.MSG_DONTWAIT)

    def _dismiss(self) -> None:
        if self._worker is not None:
            self._order(KILL, self._worker.number, 0.0)
            close(self._worker.link)
            self._worker = None

    def _fill(self) -> None:
        """Starts copies for questions that wait, up to the width."""
        while self._waiting and len(self._running) < self._width:
            try:
                self._start()
            except Failure as failure:
                self._done += [(one.number, failure) for one in self._waiting]
                self._waiting.clear()
                return
            one = self._waiting.popleft()
            ours, theirs = socket.socketpair()
            with theirs:
                self._order(ONE_CALL, one.number, self._spec.timeout_s, theirs)
            ours.setblocking(False)
            one.link, one.until = ours, time.monotonic() + self._spec.timeout_s + GRACE_S
            self._running[one.number] = one
            self._write(one)
            while one.left and select.select([], [ours], [], 1.0)[1] and one.left:  # a long one, which the copy reads
                self._write(one)

    def _write(self, one: _Question) -> None:
        assert one.link is not None
        try:
            while one.left:
                one.left = one.left[one.link.send(one.left) :]
            one.link.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # its copy is gone, which will be reported
            one.left = one.left[:0]

    def _listen(self, seconds: float) -> None:
        """Takes in what the server and the copies say, waiting for the first of it at most so long."""
        if not self._running or self._control is None:
            return
        now = time.monotonic()
        wait = min(seconds, max(0.0, min(one.until for one in self._running.values()) - now))
        reads = {one.link.fileno(): one for one in self._running.values() if one.link is not None and not one.ended}
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        for descriptor, one in reads.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if one.left else 0))
        events = dict(poll.poll(1e3 * wait))
        reported = events.pop(self._control.fileno(), 0)
        for descriptor, event in events.items():
            one = reads[descriptor]
            if event & select.POLLOUT:
                self._write(one)
            if event & ~select.POLLOUT:
                _hear(one)
        if reported:
            self._hear_reports()
        for one in list(self._running.values()):
            if one.ended and one.status is not None:
                self._finish(one, self._answer(one))
        if self._running and time.monotonic() >= min(one.until for one in self._running.values()):
            self._end(CRASH, "was lost: its server did not answer in time")

    def _hear_reports(self) -> None:
        assert self._control is not None
        try:
            part = self._control.recv(2**16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._end(CRASH, "lost its server")
            return
        self._reports += part
        while len(self._reports) >= REPORT.size:
            number, status = REPORT.unpack(bytes(self._reports[: REPORT.size]))
            del self._reports[: REPORT.size]
            if number in self._running:
                self._running[number].status = status
                _hear(self._running[number])

    def _answer(self, one: _Question) -> Any:
        """What a copy that has ended has given: exactly one answer, and the exit status 0, or a `Failure`."""
        if one.status == TIMED_OUT:
            return self._failure(one.name, TIMEOUT, f"took longer than {self._spec.timeout_s:g} s")
        if one.status == NOT_STARTED:
            return self._failure(one.name, CRASH, "could not be started: this machine has no room for a process")
        if one.status != 0 or not one.heard:
            return self._failure(one.name, CRASH, f"died (exit status {one.status})")
        try:
            if len(one.heard) > wire.MOST_BYTES:
                raise ValueError("too long")
            return wire.read(self._spec, one.name, bytes(one.heard))
        except ValueError:
            return self._failure(one.name, CRASH, "gave a malformed answer")

    def _failure(self, name: str, kind: str, what: str) -> Failure:
        return Failure(kind, f"{wire.CALLS[name].subject.format(self._spec.id)} {what}")

    def _finish(self, one: _Question, answer: Any) -> None:
        self._running.pop(one.number, None)
        close(one.link)
        self._done.append((one.number, answer))

    def _end(self, kind: str, why: str) -> None:
        """Gives the server up, and what was under way with it."""
        done = [(one.number, self._failure(one.name, kind, why)) for one in self._running.values()]
        waiting, before = list(self._waiting), self._done
        self.close()
        self._waiting.extend(waiting)
        self._done = before + done
        self._reports.clear()


def _hear(one: _Question) -> None:
    """Takes in what a copy has written so far; more than there may be is as good as nothing."""
    assert one.link is not None
    while not one.ended:
        try:
            part = one.link.recv(2**16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        one.ended = not part
        if len(one.heard) <= wire.MOST_BYTES:
            one.heard += part


def _value(answer: Any) -> Any:
    if isinstance(answer, Failure):
        raise answer
    return answer
