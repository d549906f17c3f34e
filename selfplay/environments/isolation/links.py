"""Socket pairs between a fork server, its copies and their owner: everything is sent and awaited with a time limit."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass

from selfplay.environments.isolation.wire import MOST_WORKER_BYTES


@dataclass
class Worker:
    """The copy that lives on. link: our end of its socket."""

    link: socket.socket
    number: int

    def ask(self, question: bytes, seconds: float) -> bytes:
        """A line for a line. Raises `TimeoutError`, `EOFError`, `OSError`, and `ValueError` for too long a line."""
        until = time.monotonic() + seconds
        send(self.link, memoryview(question), until)
        line = bytearray()
        while not line.endswith(b"\n"):
            wait(self.link, select.POLLIN, until)
            part = self.link.recv(2**20)
            if not part:
                raise EOFError
            line += part
            if len(line) > MOST_WORKER_BYTES:
                raise ValueError("too long")
        return bytes(line)


def wait(link: socket.socket, event: int, until: float) -> None:
    """Waits for an event of `select.poll` until a time of `time.monotonic`. Raises `TimeoutError`."""
    poll = select.poll()
    poll.register(link, event)
    if not poll.poll(max(0.0, 1e3 * (until - time.monotonic()))):
        raise TimeoutError


def send(link: socket.socket, data: memoryview, until: float) -> None:
    """Sends all of it. Raises `TimeoutError` and `OSError`."""
    while data:
        wait(link, select.POLLOUT, until)
        with contextlib.suppress(BlockingIOError):
            data = data[link.send(data, socket.MSG_DONTWAIT) :]


def receive(link: socket.socket, size: int, until: float) -> bytes:
    """Exactly so many bytes. Raises `TimeoutError`, `EOFError` and `OSError`."""
    found = bytearray()
    while len(found) < size:
        wait(link, select.POLLIN, until)
        part = link.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def close(link: socket.socket | None) -> None:
    """Closes it, whatever has become of it."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.close()
