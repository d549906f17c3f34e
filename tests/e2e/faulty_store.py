"""A proxy in front of an object store that fails as networks and stores do: at random, by a seed, or altogether."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: busy: 503, the store never heard of it. dropped: neither did it, and no answer. lost: it has done it, and no answer.
#: gateway: it has done it, and the answer is 502. cut: half an answer. slow: late, but well.
KINDS = ("busy", "dropped", "lost", "gateway", "cut", "slow")
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


class FaultyStore:
    """Listens at `endpoint` and passes on to `behind`. `seen` counts what failed; under "": what did not."""

    def __init__(self, behind: str) -> None:
        self.share, self.kinds, self.seen = 0.0, KINDS, Counter[str]()
        self.target = urlsplit(behind).netloc
        self._random, self._lock = random.Random(0), threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.up()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fail(self, share: float, seed: int = 0, kinds: tuple[str, ...] = KINDS) -> None:
        """From now on this share of the requests fails, in one of these ways."""
        with self._lock:
            self.share, self.kinds, self._random = share, kinds, random.Random(seed)

    def up(self) -> None:
        """Listens, at the same port as before."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        """Nobody listens any more, and whoever was connected is cut off."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in list(self._open):
                abort(connection)

    def fault(self) -> str:
        """What goes wrong with the next request; empty: nothing."""
        with self._lock:
            kind = self._random.choice(self.kinds) if self._random.random() < self.share else ""
            self.seen[kind] += 1
            return kind

    def connected(self, connection: socket.socket, there: bool) -> None:
        with self._lock:
            (self._open.add if there else self._open.discard)(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is cut off says nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version, proxy = "HTTP/1.1", None
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.proxy.connected(self.connection, True)

    def finish(self) -> None:
        self.proxy.connected(self.connection, False)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.proxy.fault()
        if kind == "slow":
            time.sleep(0.3)
        if kind == "dropped":
            return self.drop()
        if kind == "busy":
            return self.answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
        status, headers, data = self.forward(body)
        if kind == "lost":
            return self.drop()
        if kind == "gateway":
            return self.answer(502, [], b"")
        self.answer(status, headers, data, cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        behind = http.client.HTTPConnection(self.proxy.target, timeout=60)
        behind.request(self.command, self.path, body, dict(self.headers.items()))
        with contextlib.closing(behind):
            reply = behind.getresponse()
            size = reply.headers.get("Content-Length") if self.command == "HEAD" else None
            kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
            return reply.status, kept + ([("Content-Length", size)] if size else []), reply.read()

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.drop()

    def drop(self) -> None:
        abort(self.connection)
        self.close_connection = True


def abort(connection: socket.socket) -> None:
    """Ends it with a reset, as when the other end has lost power."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
