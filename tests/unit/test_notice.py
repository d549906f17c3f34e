"""Notices of spot nodes, as the clouds' metadata services give them; a server on loopback stands in for these."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from selfplay.actors import notice


class Metadata(BaseHTTPRequestHandler):
    """AWS's (with its session tokens) and Google's, before and after the notice."""

    noticed = False

    def do_PUT(self) -> None:
        assert self.path == "/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer("secret")

    def do_GET(self) -> None:
        if self.path == "/meta-data/spot/instance-action" and self.headers["X-aws-ec2-metadata-token"] == "secret":
            self.answer('{"action": "terminate"}' if self.noticed else None)
        elif self.path == "/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            self.answer("TRUE" if self.noticed else "FALSE")
        else:
            self.send_error(403)

    def answer(self, text: str | None) -> None:
        if text is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Metadata]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    monkeypatch.setenv("SELFPLAY_METADATA", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(Metadata, "noticed", False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Metadata
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_a_notice_is_heard(metadata: type[Metadata], cloud: str) -> None:
    assert not notice.given(cloud)
    metadata.noticed = True
    assert notice.given(cloud)


def test_no_metadata_service_is_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFPLAY_METADATA", "http://127.0.0.1:1")
    assert not notice.given("aws") and not notice.given("gcp")


def test_a_node_leaves_when_the_file_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFPLAY_NOTICE", str(tmp_path / "notice"))
    assert not notice.leaving()
    monkeypatch.delenv("SELFPLAY_NOTICE")
    assert not notice.leaving()  # nobody gives notice at home
    monkeypatch.setenv("SELFPLAY_NOTICE", str(tmp_path / "notice"))
    (tmp_path / "notice").touch()
    assert notice.leaving()
