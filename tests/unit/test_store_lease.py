"""The lease: one driver holds a run, the dead give way at once, and epochs only rise."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selfplay import storage
from selfplay.errors import UserError
from selfplay.store import lease

HOLD = (
    "import sys, time; from selfplay.store import lease; held = lease.acquire(sys.argv[1], 'other');"
    "print(held.epoch, flush=True); time.sleep(60)"
)


def test_a_held_run_is_refused_by_name_and_a_released_one_is_free(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    with lease.acquire(run, "selfplay run") as first:
        assert first.epoch == 1
        with pytest.raises(UserError, match=rf"held by selfplay run \(process {os.getpid()} on {socket.gethostname()}"):
            lease.acquire(run, "second")
    second = lease.acquire(run, "second")
    assert second.epoch == 2 and not second.lost() and first.lost()
    second.release()
    second.release()
    assert lease.holder_of(run) == second.holder


def test_a_killed_process_of_this_machine_gives_way_at_once(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    other = subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline().strip() == "1"
    with pytest.raises(UserError, match="held by other"):
        lease.acquire(run, "me")
    other.kill()
    other.wait()
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 2


def test_another_machine_is_believed_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    away = lease.Holder(1, "selfplay run", "elsewhere", 77, "x")
    storage.create(f"{run}/lease/000001.json", json.dumps(away.__dict__).encode())
    beat = f"{run}/lease/000001.heartbeat.json"
    storage.write(beat, b"{}")
    with pytest.raises(UserError, match="process 77 on elsewhere"):
        lease.acquire(run, "me")
    old = os.stat(beat).st_mtime - lease.EXPIRES_S - 1
    os.utime(beat, (old, old))
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 2


def test_a_reused_pid_is_not_the_holder(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    before = lease.Holder(1, "selfplay run", socket.gethostname(), os.getpid(), "another boot/1")
    storage.create(f"{run}/lease/000001.json", json.dumps(before.__dict__).encode())
    storage.write(f"{run}/lease/000001.heartbeat.json", b"{}")
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 2


def test_of_many_at_once_one_gets_the_run(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    held: list[lease.Lease] = []
    refused: list[UserError] = []

    def take() -> None:
        try:
            held.append(lease.acquire(run, "racer"))
        except UserError as error:
            refused.append(error)

    racers = [threading.Thread(target=take) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(held) == 1 and len(refused) == 7
    held[0].release()
