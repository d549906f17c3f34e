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

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import lease

HOLD = (
    "import sys, time; from selfplay.store.table import lease; held = lease.acquire(sys.argv[1], 'other');"
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
    beat = held_elsewhere(run)
    with pytest.raises(UserError, match="process 77 on elsewhere"):
        lease.acquire(run, "me")
    old = beat.stat().st_mtime - lease.EXPIRES_S - 1
    os.utime(beat, (old, old))
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 2


def test_a_reused_pid_is_not_the_holder(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    space = os.readlink("/proc/self/ns/pid")
    before = lease.Holder(1, "selfplay run", socket.gethostname(), os.getpid(), "another boot/1", space)
    storage.create(f"{run}/lease/000001.json", json.dumps(before.__dict__).encode())
    storage.write(f"{run}/lease/000001.heartbeat.json", b"{}")
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 2


def held_elsewhere(run: str, **more: str) -> Path:
    """A run that another machine's driver holds; its heartbeat."""
    away = lease.Holder(1, "selfplay run", "elsewhere", 77, "x")
    storage.create(f"{run}/lease/000001.json", json.dumps({**away.__dict__, **more}).encode())
    beat = Path(run, "lease/000001.heartbeat.json")
    storage.write(str(beat), b"{}")
    return beat


def test_a_container_with_this_machines_name_is_another_machine(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    held_elsewhere(run, host=socket.gethostname(), space="pid:[1]")  # no process 77 here says nothing of its
    with pytest.raises(UserError, match="held by selfplay run"):
        lease.acquire(run, "me")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRES_S", 3.0)
    monkeypatch.setattr(lease, "LOOK_S", 0.05)


def test_who_waits_takes_the_run_of_the_dead(tmp_path: Path, soon: None) -> None:
    run, words = str(tmp_path / "run"), list[str]()
    held_elsewhere(run)
    with lease.acquire(run, "me", words.append) as mine:
        assert mine.epoch == 2
    assert "for a sign of life from selfplay run (process 77 on elsewhere)" in words[0]


def test_who_waits_is_refused_at_a_sign_of_life(tmp_path: Path, soon: None) -> None:
    run, words = str(tmp_path / "run"), list[str]()
    beat = held_elsewhere(run)
    os.utime(beat, (beat.stat().st_mtime - 1, beat.stat().st_mtime - 1))

    def wait(word: str) -> None:
        words.append(word)
        storage.write(str(beat), b"{}")

    with pytest.raises(UserError, match="process 77 on elsewhere"):
        lease.acquire(run, "me", wait)
    assert len(words) == 1


def test_a_lost_acknowledgement_is_no_other_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is written, the word of it is lost, and the client's second attempt finds it there."""
    run, create = str(tmp_path / "run"), storage.create
    monkeypatch.setattr(storage, "create", lambda *data, **how: create(*data, **how) and False)
    with lease.acquire(run, "me") as mine:
        assert mine.epoch == 1


def test_a_driver_that_was_only_thought_dead_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(tmp_path / "run")
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with lease.acquire(run, "me") as mine:
        assert not mine.taken.wait(0.2)
        later = lease.Holder(2, "selfplay run", "elsewhere", 77, "x")
        storage.create(f"{run}/lease/000002.json", json.dumps(later.__dict__).encode())
        assert mine.taken.wait(30)


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
