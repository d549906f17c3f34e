"""The power goes while a committer writes: what it had acknowledged is on the disk, and the run goes on.

A file system of its own (ext4 with its default options, in an image on a loop device) holds the corpus. At random
instants the writer is stopped, and the image is copied: it holds what the kernel has sent to the disk, and nothing of
what only its cache knows. The journal commits late, so that whatever was not fsynced is really missing. The copy is
mounted, as after the power has come back, and must hold everything that was acknowledged until then, which a journal on
another disk says. A disk that loses what it has acknowledged itself is beyond this test.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyspiel
import pytest

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.store.table import log
from selfplay.store.table.closings import close_earlier
from selfplay.store.table.replayed import replay
from selfplay.store.table.table import episodes_uri
from selfplay.store.verify.verify import verify_corpus

WORKER = Path(__file__).with_name("store_worker.py")
#: A writer whose fsync does nothing: that the test would find out.
CARELESS = "import os, runpy, sys; os.fsync = lambda _: None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501
GAME = pyspiel.load_game("tic_tac_toe")
#: Seconds from one cut to the next, at most.
GAP_S = 0.6


class Disk:
    """An image with a file system, mounted on a folder."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder
        folder.mkdir(exist_ok=True)

    def make(self) -> None:
        with open(self.image, "wb") as file:
            file.truncate(96 * 2**20)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))

    def mount(self, options: str = "loop") -> None:
        run("mount", "-o", options, str(self.image), str(self.folder))

    def unmount(self) -> None:
        if self.folder.is_mount():
            run("umount", str(self.folder))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Disk, Disk]]:
    """A disk, mounted, and one that takes its copies. Skips where this user may not mount.

    The images lie in memory where there is room: a copy is to take no time, whatever else the machine does.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    images = Path(tempfile.mkdtemp(prefix="power-cut-", dir=memory if roomy else tmp_path))
    first = Disk(images / "image", tmp_path / "disk")
    copy = Disk(images / "copied", tmp_path / "later")
    try:
        first.make()
        first.mount("loop,commit=600")
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(images)
        pytest.skip(f"a file system in an image can be mounted by root only, with mkfs.ext4 and loop devices: {error}")
    try:
        yield first, copy
    finally:
        copy.unmount()
        first.unmount()
        shutil.rmtree(images)


def start(corpus: Path, run_folder: Path, journal: Path, careless: bool) -> subprocess.Popen[str]:
    script = ["-c", CARELESS] if careless else []
    command = [sys.executable, *script, str(WORKER), str(corpus), str(run_folder), "run", str(journal), "600"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def cut(worker: subprocess.Popen[str], disk: Disk, copy: Disk, journal: Path, to: Path) -> set[str]:
    """The power goes now, and the writer stands still. What the disk holds is in `to`; returns what it acknowledged."""
    worker.send_signal(signal.SIGSTOP)
    while state_of(worker.pid) not in "TZ":  # an fsync under way comes to its end first
        time.sleep(0.001)
    # Under a new name each time: a process in a mount namespace of its own, begun meanwhile, may hold the copy before,
    # and its loop device would then give what that one held.
    copy.image = copy.image.with_name(f"copy-{uuid.uuid4().hex}")
    run("cp", "--sparse=always", str(disk.image), str(copy.image))
    try:
        copy.mount()
        shutil.copytree(copy.folder, to, ignore=shutil.ignore_patterns("lost+found"))
    finally:
        copy.unmount()
        copy.image.unlink()
    return acknowledged_in(journal)


def state_of(pid: int) -> str:
    """The state of a process's slowest thread: T where all are stopped."""
    states = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        states.append(Path(f"/proc/{pid}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()[0])
    return next((state for state in states if state != "T"), "T")


def acknowledged_in(journal: Path) -> set[str]:
    lines = (line.split() for line in journal.read_text().splitlines()) if journal.exists() else ()
    return {line[1] for line in lines if line[0] == "archived"}


def lost_after(corpus: Path, acknowledged: set[str], epoch: int) -> set[str]:
    """What is lost of what was acknowledged. The rest must be in order: the writer goes on, every episode is true."""
    lost = acknowledged - in_the_log(corpus)
    committer = store.Committer(str(corpus), "run", epoch)
    there = Counter(store.open(str(corpus)).to_arrow(columns=["episode_id"])["episode_id"].to_pylist())
    assert not [name for name, times in there.items() if times != 1], "doubled"
    close_earlier(str(corpus), "run", epoch)
    store.append(str(corpus), "runs", [{"run_id": "run", "epoch": epoch}])
    slot = committer.register("a0")
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")
    played = [random_episode(GAME, n, provenance, slot="a0", epoch=slot.epoch, number=n) for n in range(2)]
    block = store.write_block(str(corpus), to_batch(played), "a0", slot.epoch, slot.next_number)
    assert committer.commit([block])[0].status == "committed"
    assert not store.Committer(str(corpus), "run", epoch).mended, "what was repaired stays so"
    assert not [check for check in verify_corpus(store.open(str(corpus))) if check.state == "false"]
    return lost | (acknowledged - set(there))


def in_the_log(corpus: Path) -> set[str]:
    """Ids of the episodes that the log has on the disk, before anything is repaired."""
    table = episodes_uri(str(corpus))
    state = replay(table, {fault.file for fault in log.check(table)})
    ends = [(added.stats["minValues"], added.stats["maxValues"]) for added in state.files.values()]
    return {
        f"run/{low['slot']}/{low['epoch']}/{number}"
        for low, high in ends
        for number in range(low["number"], high["number"] + 1)
    }


def cuts(disks: tuple[Disk, Disk], place: Path, count: int, seed: int, careless: bool = False) -> list[set[str]]:
    """Cuts the power `count` times; what was lost each time. Every few cuts a new corpus is begun."""
    rng = random.Random(seed)
    disk, copy = disks
    losses: list[set[str]] = []
    some = 0
    while len(losses) < count:
        corpus, journal, folder = disk.folder / f"corpus{some}", place / f"journal{some}", place / f"run{some}"
        worker = start(corpus, folder, journal, careless)
        try:
            assert worker.stdout is not None
            if some % 2:  # every second time the power may go while the table is made
                worker.stdout.readline()
            else:
                while not corpus.exists():
                    time.sleep(0.005)
            for _ in range(min(10, count - len(losses))):
                time.sleep(rng.uniform(0.0, GAP_S))
                acknowledged = cut(worker, disk, copy, journal, place / "after")
                losses.append(lost_after(place / "after" / corpus.name, acknowledged, 2))
                shutil.rmtree(place / "after")
                worker.send_signal(signal.SIGCONT)
                print(f"cut {len(losses)}: {len(acknowledged)} acknowledged, {len(losses[-1])} lost", flush=True)
        finally:
            worker.kill()
            worker.wait()
        shutil.rmtree(corpus)
        some += 1
    return losses


def test_nothing_acknowledged_is_lost_when_the_power_goes(disks: tuple[Disk, Disk], tmp_path: Path) -> None:
    assert cuts(disks, tmp_path, 5, seed=1) == [set()] * 5


def test_a_writer_that_does_not_fsync_is_found_out(disks: tuple[Disk, Disk], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert not any(cuts(disks, tmp_path, 5, seed=2, careless=True))


@pytest.mark.slow
def test_two_hundred_power_cuts(disks: tuple[Disk, Disk], tmp_path: Path) -> None:
    assert cuts(disks, tmp_path, 200, seed=3) == [set()] * 200
