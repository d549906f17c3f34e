"""A local S3 server for the tests that need one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from selfplay import store
from selfplay.store.verify.verify import verify_corpus

#: Far more than anything takes: a busy machine must not fail a test.
PATIENCE_S = 300.0
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the tests run in the background, and drivers would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
#: So small that every part of the loop has had its turn within seconds.
QUICK = [
    "--set=selfplay.games=16",
    "--set=selfplay.refresh_moves=4",
    "--set=search.simulations=8",
    "--set=learner.window_initial=500",
    "--set=learner.batch=64",
    "--set=learner.publish_every_samples=1000",
    "--set=evaluation.games=4",
    '--set=evaluation.opponents=["random"]',
    "--set=evaluation.simulations=4",
    "--set=evaluation.exact_positions=0",
]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server on this machine, with any keys, empty at first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    pytest.skip("moto's server is not installed")
                time.sleep(0.1)
        else:
            pytest.fail("the S3 server did not start")
        yield endpoint
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_uri(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """`s3://bucket` of a new bucket; the variables that lead to it are set for this test and its child processes."""
    variables = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**9}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT"), timeout=10).close()
    return f"s3://{bucket}"


class Driver:
    """A `selfplay run` in a session of its own, as in a terminal of its own, and every process that comes of it."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.marker = f"SELFPLAY_TEST_RUN={uuid.uuid4().hex}"
        self.known: dict[int, psutil.Process] = {}
        self._out, self._err = folder / f"{uuid.uuid4().hex}.out", folder / f"{uuid.uuid4().hex}.err"
        name, value = self.marker.split("=")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("selfplay")), *arguments],
                cwd=folder,
                stdout=out,
                stderr=err,
                env={**os.environ, **environment, name: value},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text()

    @property
    def told(self) -> str:
        """Standard output and standard error so far."""
        return self.out + self._err.read_text()

    @property
    def games_told(self) -> int:
        """Archived games of which the last progress line told."""
        told = re.findall(r"([0-9][0-9,]*) games, [0-9,]+ positions", self.told)
        return int(told[-1].replace(",", "")) if told else 0

    def alive(self) -> list[psutil.Process]:
        """The driver and what came of it, however indirectly, as far as it still runs."""
        for process in psutil.process_iter():
            if process.pid not in self.known and self._is_mine(process):
                self.known[process.pid] = process
        return [p for p in self.known.values() if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if os.getsid(process.pid) == self.process.pid or process.ppid() in self.known:
                return True
            return self.marker.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except (OSError, psutil.Error):
            return False

    def actor(self, kind: str) -> psutil.Process | None:
        """The process of an actor, if it has begun."""
        return next((p for p in self.alive() if _title(p).startswith(f"ray::{kind}")), None)

    def until(self, reached: Callable[[], Any], what: str) -> Any:
        """Waits until `reached` gives something true, and returns it; fails if the driver ends before."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            found = reached()
            if found:
                return found
            assert not ended, f"it ended ({self.process.returncode}) before {what}:\n{self.told}"
            time.sleep(0.1)
        raise AssertionError(f"not seen in {PATIENCE_S:.0f} s: {what}\n{self.told}")

    def until_archived(self, uri: str | Path, more_than: int = 0) -> int:
        """Waits until the corpus of a run holds more than so many episodes."""
        return int(self.until(lambda: (n := count(uri)) > more_than and n, f"episode {more_than + 1}"))

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to every process of the foreground group."""
        self.alive()
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """`kill -9` of the driver alone."""
        self.alive()
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """The exit code; its offspring must be gone by then, or within moments."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end in {PATIENCE_S:.0f} s:\n{self.told}"
            self.alive()
            time.sleep(0.2)
        self.until_gone()
        return int(self.process.returncode)

    def until_gone(self) -> None:
        """Waits until no process of it is left. A busy machine may take its time, a process that stays is a fault."""
        end = time.monotonic() + 60
        while left := self.alive():
            assert time.monotonic() < end, f"left behind: {[_title(p) for p in left]}"
            time.sleep(0.2)

    def summary(self) -> dict[str, Any]:
        """The last line of standard output, which `--json` promises to be one JSON object."""
        return dict(json.loads(self.out.splitlines()[-1]))

    def end(self) -> None:
        """Ends what is left, for the next test's sake."""
        for process in self.alive():
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return psutil.STATUS_ZOMBIE


Start = Callable[..., Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*arguments, **variables)`: begins `selfplay run` in a folder of its own; ended with the test."""
    drivers: list[Driver] = []

    def begin(*arguments: str | Path, **variables: str) -> Driver:
        drivers.append(Driver(["run", *map(str, arguments)], tmp_path, variables))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.end()


def count(uri: str | Path) -> int:
    """Episodes in the corpus of a run; none while there is none."""
    try:
        return store.open(str(uri)).count()
    except Exception:  # the table is being made at this moment
        return 0


@pytest.fixture
def sound() -> Callable[[str | Path], pa.Table]:
    """`sound(uri)`: nothing is lost, doubled or untrue in the corpus of a run; returns its rows."""

    def check(uri: str | Path) -> pa.Table:
        corpus = store.open(str(uri))
        rows = corpus.to_arrow()
        for name in ("episode_id", "seed"):  # what was played twice would have a seed twice
            doubled = [value for value, times in Counter(rows[name].to_pylist()).items() if times > 1]
            assert not doubled, (name, doubled)
        numbers: dict[tuple[str, str, int], list[int]] = {}
        columns = (rows[name].to_pylist() for name in ("run_id", "slot", "epoch", "number"))
        for run, slot, epoch, number in zip(*columns, strict=True):
            numbers.setdefault((run, slot, epoch), []).append(number)
        for writer, found in numbers.items():
            assert sorted(found) == list(range(len(found))), f"gaps in what {writer} has sealed"
        wrong = [check for check in verify_corpus(corpus) if check.state != "true"]
        assert not wrong, wrong[:3]
        policies = {(row["version"], row["digest"]) for row in corpus.table("policies").to_pylist()}
        for spans in rows["policy_spans"].to_pylist():
            for span in spans:
                played = (span["version"], span["digest"])
                assert span["policy_id"] == "random" or played in policies, f"nobody published {played}"
        return rows

    return check


@pytest.fixture
def quick() -> list[str]:
    """Settings so small that every part of the loop has had its turn within seconds."""
    return list(QUICK)
