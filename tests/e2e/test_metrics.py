"""What a run on a cluster hands to Prometheus, read as Prometheus reads it: from Ray's own exporter, over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from ray.util import get_node_ip_address

from trainers.run.status_publisher import METRICS

pytest.importorskip("prometheus_client", reason="the extra `cluster` is not installed")
Scraped = dict[str, tuple[dict[str, str], float]]
#: What only a reasoning run, or one on a GPU, has.
NOT_HERE = {"tokens", "tokens_per_s", "rounds", "reward", "length", "unverifiable", "lost_episodes"}


def free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]
    finally:
        for one in taken:
            one.close()


class Head:
    """A Ray of one node with its metrics agent, as `ray start --head` makes it; ended by its own processes' ids."""

    def __init__(self, folder: Path) -> None:
        (folder / "token").write_text("0123456789abcdef" * 4)
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        port, self.metrics, *others = free_ports(6)
        self.address = f"{get_node_ip_address()}:{port}"  # Ray takes no loopback for one
        names = ("dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port")
        ports = [f"--{name}={number}" for name, number in zip(names, others, strict=True)]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", *ports]
        command += [f"--metrics-export-port={self.metrics}", "--dashboard-host=127.0.0.1", "--num-cpus=1"]
        command += [f"--temp-dir={folder}", "--object-store-memory=200000000"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True,
            env={**os.environ, **self.variables, "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip

    def scrape(self) -> Scraped:
        """Our metrics, without their prefix: labels and value. Empty while nobody listens."""
        from prometheus_client.parser import text_string_to_metric_families

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as reply:
                text = reply.read().decode()
        except OSError:
            return {}
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = [sample for sample in samples if sample.name.startswith("ray_selfplay_")]
        assert len({sample.name for sample in found}) == len(found), "one run, and a value each"
        return {sample.name.removeprefix("ray_selfplay_"): (sample.labels, sample.value) for sample in found}

    def up(self) -> bool:
        assert self._process.poll() is None, "Ray did not start"
        host, _, port = self.address.rpartition(":")
        with socket.socket() as knocking:
            return knocking.connect_ex((host, int(port))) == 0

    def end(self) -> None:
        """Nothing but what came of it: others may have a Ray of their own here."""
        ours = {process for process in psutil.process_iter() if self._is_ours(process)}
        ours |= {child for process in ours for child in process.children(recursive=True)}
        self._process.kill()
        self._process.wait()
        for process in ours:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(OSError, psutil.Error):
            return os.getsid(process.pid) == self._process.pid or process.ppid() == self._process.pid
        return False


@pytest.fixture
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))  # short: sockets lie there
    one = Head(folder)
    try:
        yield one
    finally:
        one.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_metrics_say_what_the_status_says(
    head: Head, start: Callable[..., Any], quick: list[str], tmp_path: Path, sound: Callable[..., pa.Table]
) -> None:
    out = tmp_path / "run"
    while not head.up():
        time.sleep(0.2)
    words = ["tic_tac_toe", "--out", out, *quick, "--address", head.address, "--minutes=30", "--json"]
    driver = start(*words, **head.variables)
    told: dict[str, set[float]] = {name: set() for name in ("episodes", "positions", "version", "players")}
    scraped: list[Scraped] = []

    def seen() -> bool:
        if (out / "status.json").exists():
            status = json.loads((out / "status.json").read_text())["status"]
            for name, values in told.items():
                values.add(float(status[name]))
        scraped.append(head.scrape())
        return set(scraped[-1]) >= set(METRICS) - NOT_HERE and scraped[-1]["version"][1] >= 1

    driver.until(seen, "every metric of a run of games")
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    newest = scraped[-1]
    assert set(newest) == set(METRICS) - NOT_HERE
    for labels, _ in newest.values():
        assert labels["run"] == str(out) and labels["recipe"] == "tic_tac_toe"
    for name, values in told.items():
        assert {one[name][1] for one in scraped if name in one} <= values | {0.0}, name
    episodes = [one["episodes"][1] for one in scraped if "episodes" in one]
    assert episodes == sorted(episodes)
    last = json.loads((out / "status.json").read_text())["status"]
    assert last["phase"] == "finished"
    assert sound(out).num_rows == last["episodes"] >= episodes[-1] > 0
