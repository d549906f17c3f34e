"""A Ray that a run starts on this machine is out of others' reach."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from selfplay.errors import UserError
from trainers.run.ray_session import _close_token, ray_session

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_local_ray_listens_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its workers do not look for modules in the folder in which the command was given."""
    monkeypatch.chdir(tmp_path)
    with ray_session(None):

        @ray.remote
        def places() -> list[str]:
            return [os.path.abspath(place) for place in sys.path]

        assert str(tmp_path) not in ray.get(places.remote())
        time.sleep(2)  # agents come a little later
        me = psutil.Process()
        listening = {
            (process.name(), one.laddr.ip)
            for process in (me, *me.children(recursive=True))
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    assert {ip for _, ip in listening} <= LOOPBACK, sorted(listening)


def test_a_local_ray_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UserError, match="RAY_AUTH_MODE=disabled"), ray_session(None):
        pass


def test_the_token_is_closed_to_others(tmp_path: Path) -> None:
    token, link = tmp_path / "auth_token", tmp_path / "link"
    token.write_text("secret")
    token.chmod(0o644)
    link.symlink_to(token)
    _close_token(link)
    _close_token(tmp_path / "nothing")
    assert token.stat().st_mode & 0o777 == 0o644
    _close_token(token)
    assert token.stat().st_mode & 0o777 == 0o600
