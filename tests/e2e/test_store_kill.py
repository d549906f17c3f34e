"""Real processes, really killed: nothing that was acknowledged is lost, and nothing is there twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from selfplay import store
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table.maintenance import compact
from selfplay.store.verify.verify import verify_corpus

WORKER = Path(__file__).with_name("store_worker.py")
KEEPER = Path(__file__).with_name("store_keeper.py")
POINTS = ["before_write", "after_write", "before_commit:2", "after_commit:3"]


def start(corpus: str, run_id: str, journals: Path, seconds: float, fault: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), corpus, f"{corpus}-{run_id}", run_id, str(journals / run_id), str(seconds)]
    environment = {**os.environ, "SELFPLAY_FAULT": fault} if fault else dict(os.environ)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def start_keeper(corpus: str, fault: str = "") -> subprocess.Popen[str]:
    """A process that compacts and vacuums."""
    environment = {**os.environ, "SELFPLAY_FAULT": fault} if fault else dict(os.environ)
    return subprocess.Popen([sys.executable, str(KEEPER), corpus], stdout=subprocess.PIPE, text=True, env=environment)


def kill_after(worker: subprocess.Popen[str], seconds: float) -> None:
    """Waits until the worker is at work, and a little longer."""
    assert worker.stdout is not None
    worker.stdout.readline()
    time.sleep(seconds)
    worker.kill()
    worker.wait()


def finish(worker: subprocess.Popen[str]) -> int:
    worker.communicate(timeout=60)
    return worker.returncode


def check(corpus: str, journals: Path) -> int:
    """What the journals say was acknowledged is there once; everything there was sealed. Returns how many are there."""
    there = Counter(store.open(corpus).to_arrow(columns=["episode_id"])["episode_id"].to_pylist())
    lines = [line.split() for path in journals.iterdir() for line in path.read_text().splitlines()]
    sealed = {line[1] for line in lines if line[0] == "sealed"}
    archived = {line[1] for line in lines if line[0] == "archived"}
    assert not [name for name, times in there.items() if times != 1], "doubled"
    assert archived <= set(there), "lost"
    assert set(there) <= sealed, "invented"
    assert archived, "nothing was archived at all: the test shows nothing"
    return len(there)


def test_killed_at_every_named_point(tmp_path: Path) -> None:
    corpus, journals = str(tmp_path / "corpus"), tmp_path / "journals"
    journals.mkdir()
    assert finish(start(corpus, "run", journals, 0.2)) == 0
    for point in POINTS:
        assert finish(start(corpus, "run", journals, 20, point)) == -9, point
    assert finish(start(corpus, "run", journals, 0.2)) == 0
    check(corpus, journals)
    assert store.open(corpus).table("runs").num_rows == 2 + len(POINTS)
    assert not [c for c in verify_corpus(store.open(corpus)) if c.state == "false"]


def test_compaction_killed_at_every_named_point(tmp_path: Path) -> None:
    corpus, journals = str(tmp_path / "corpus"), tmp_path / "journals"
    journals.mkdir()
    for point in ("before_rewrite", "after_rewrite"):
        assert finish(start(corpus, "run", journals, 0.5)) == 0
        assert finish(start_keeper(corpus, point)) == -9, point
    count = check(corpus, journals)
    compact(corpus)
    assert check(corpus, journals) == count and len(store.open(corpus).files()) == 1
    assert not [c for c in verify_corpus(store.open(corpus)) if c.state == "false"]


def rounds(corpus: str, journals: Path, count: int, seed: int, runs: tuple[str, ...] = ("red", "blue")) -> None:
    """Runs share the corpus, and one keeper tidies it; at random instants one of them is killed and started again."""
    rng = random.Random(seed)

    def begin(who: str) -> subprocess.Popen[str]:
        return start_keeper(corpus) if who == "keeper" else start(corpus, who, journals, 600)

    at_work = {who: begin(who) for who in (*runs, "keeper")}
    for _ in range(count):
        who = rng.choice(list(at_work))
        kill_after(at_work[who], rng.uniform(0.0, 0.5))
        at_work[who] = begin(who)
    for process in at_work.values():
        kill_after(process, 0.3)
    check(corpus, journals)
    assert not [c for c in verify_corpus(store.open(corpus)) if c.state == "false"]


def test_two_runs_killed_at_random(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    rounds(str(tmp_path / "corpus"), tmp_path / "journals", 4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_two_runs_killed_at_random_many_times(tmp_path: Path, seed: int) -> None:
    (tmp_path / "journals").mkdir()
    rounds(str(tmp_path / "corpus"), tmp_path / "journals", 50, seed=seed)


@pytest.mark.slow
def test_four_drivers_share_a_table(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    rounds(str(tmp_path / "corpus"), tmp_path / "journals", 20, seed=7, runs=("one", "two", "three", "four"))
    ids = store.open(str(tmp_path / "corpus")).to_arrow(columns=["run_id"])["run_id"].unique().to_pylist()
    assert sorted(ids) == ["four", "one", "three", "two"]


@pytest.mark.slow
def test_everything_killed_at_once(tmp_path: Path) -> None:
    corpus, journals = str(tmp_path / "corpus"), tmp_path / "journals"
    journals.mkdir()
    rng = random.Random(11)
    for _ in range(15):
        all_ = [start(corpus, run_id, journals, 600) for run_id in ("red", "blue")]
        assert all(process.stdout is not None and process.stdout.readline() for process in all_)
        all_.append(start_keeper(corpus))
        time.sleep(rng.uniform(0.1, 0.9))
        for process in all_:
            process.kill()
        for process in all_:
            process.wait()
    check(corpus, journals)
    assert not [c for c in verify_corpus(store.open(corpus)) if c.state == "false"]


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    corpus, journals = str(tmp_path / "corpus"), tmp_path / "journals"
    journals.mkdir()
    worker = start(corpus, "run", journals, 60)
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    with pytest.raises(UserError, match=f"held by store_worker .process {worker.pid} "):
        store.acquire(f"{corpus}-run", "second")
    worker.kill()
    worker.wait()
    store.acquire(f"{corpus}-run", "second").release()


def test_on_s3_killed_and_with_no_local_disk(s3_uri: str, tmp_path: Path) -> None:
    corpus, journals = f"{s3_uri}/some/corpus", tmp_path
    rounds(corpus, journals, 2, seed=3)
    assert finish(start(corpus, "red", journals, 20, "after_commit:2")) == -9
    assert finish(start(corpus, "red", journals, 0.5)) == 0
    assert check(corpus, journals) == store.open(corpus).count()
    assert not [c for c in verify_corpus(store.open(corpus)) if c.state == "false"]


def test_s3_is_a_storage_like_any_other(s3_uri: str) -> None:
    uri = f"{s3_uri}/a/b"
    storage.write(uri, b"one")
    assert storage.read(uri) == b"one" and storage.size(uri) == 3 and storage.exists(uri)
    assert not storage.create(uri, b"two") and storage.create(f"{s3_uri}/a/c", b"three")
    assert storage.names(f"{s3_uri}/a") == ["b", "c"]
    assert abs(storage.server_time(s3_uri) - time.time()) < 5
    storage.delete(uri)
    storage.delete(uri)
    with pytest.raises(FileNotFoundError):
        storage.read(uri)
    storage.delete_tree(s3_uri)
    assert list(storage.entries(s3_uri)) == []
    with pytest.raises(UserError, match="there is no bucket"):
        storage.write("s3://no-such-bucket-here/x", b"")
    with pytest.raises(UserError, match="there is no corpus"):
        store.open(f"{s3_uri}/nothing")
