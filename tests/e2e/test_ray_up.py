"""`ray up` for real, over ssh, onto hosts with addresses of their own; nodes come, are cut off and lose power.

The cluster file is the one that ships for machines of one's own, but for addresses, key, and paths: the hosts share
this machine's files, so nothing is copied or installed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

import selfplay
from selfplay import store
from tests.e2e import hosts as made

BIN = Path(sys.executable).parent
ROOT = Path(selfplay.__file__).resolve().parent.parent
PATIENCE_S = 300.0


def until(reached: Callable[[], Any], what: str, told: Callable[[], str] = lambda: "") -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := reached()):
        assert time.monotonic() < end, f"not seen in {PATIENCE_S:.0f} s: {what}\n{told()}"
        time.sleep(0.5)
    return found


class Cluster:
    """A head and workers, brought up by Ray's launcher."""

    def __init__(self, hosts: made.Hosts, workers: int) -> None:
        self.hosts, self.head = hosts, hosts.addresses[0]
        self.file = hosts.folder / "machines.yaml"
        self.write(workers)

    def write(self, workers: int) -> None:
        """The shipped file with these hosts' addresses, key and folders."""
        shipped = yaml.safe_load((ROOT / "trainers/clusters/machines.yaml").read_text())
        shipped["cluster_name"] = self.hosts.folder.name
        shipped["provider"] |= {"head_ip": self.head, "worker_ips": self.hosts.addresses[1 : 1 + workers]}
        shipped["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        shipped |= {"file_mounts": {}, "setup_commands": []}
        place = f"--node-ip-address=$HOST_ADDRESS --temp-dir={self.hosts.folder}/$HOST_ADDRESS/ray"
        for key, cores in (("head_start_ray_commands", ""), ("worker_start_ray_commands", " --num-cpus=1")):
            shipped[key] = [command.replace("~/factory-venv/bin", str(BIN)) for command in shipped[key]]
            shipped[key][-1] += f" {place} --object-store-memory=200000000{cores}"
        self.file.write_text(yaml.safe_dump(shipped))

    def ray(self, *words: str) -> str:
        done = subprocess.run(
            [str(BIN / "ray"), *words], capture_output=True, text=True, cwd=self.hosts.folder,
            env={**os.environ, "HOME": str(self.hosts.folder), "RAY_AUTH_MODE": "token"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *options: str) -> None:
        self.ray("up", "-y", "--no-config-cache", *options, str(self.file))

    def on_head(self, command: str) -> str:
        done = self.hosts.run(self.head, f"PATH={BIN}:$PATH {command}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *words: str) -> str:
        """The id of a job."""
        told = self.on_head(
            f"ray job submit --address=http://127.0.0.1:8265 --no-wait -- selfplay run {shlex.join(words)}"
        )
        return next(word.strip("'") for word in told.split() if word.startswith("'raysubmit_"))

    def job(self, verb: str, job: str) -> str:
        return self.on_head(f"ray job {verb} --address=http://127.0.0.1:8265 {job} 2>&1")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Four hosts, of which a head and two workers belong to the cluster, and a bucket that all of them reach."""
    lacking = made.missing()
    if lacking:
        pytest.skip(lacking)
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
    hosts, server = made.Hosts(folder), None
    try:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", hosts.gateway, "-p", "5555"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (folder / "token").write_text("0123456789abcdef" * 4)
        variables = {
            "AWS_ENDPOINT_URL": f"http://{hosts.gateway}:5555",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "WANDB_MODE": "disabled",
        }
        hosts.add(4, {**variables, "RAY_AUTH_MODE": "token"})
        with pytest.MonkeyPatch.context() as here:
            for name, value in variables.items():
                here.setenv(name, value)
            until(lambda: bucket(hosts.gateway), "the S3 server")
            yield Cluster(hosts, 2)
    finally:
        hosts.close()
        if server is not None:
            server.kill()


def bucket(gateway: str) -> bool:
    """Makes it; whether that worked."""
    try:
        request = urllib.request.Request(f"http://{gateway}:5555/bucket", method="PUT")
        urllib.request.urlopen(request, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_nodes_come_and_go_and_nothing_is_lost(
    cluster: Cluster, quick: list[str], sound: Callable[..., pa.Table]
) -> None:
    cluster.up()
    asked = ["--set=selfplay.actors=3", "--address=auto"]  # one more than there are nodes yet
    job = cluster.submit("tic_tac_toe", "--out=s3://bucket/run", "--minutes=60", *quick, *asked)

    def games(slots: int) -> int:
        """Archived, where so many players have archived any; else 0."""
        try:
            rows = store.open("s3://bucket/run").to_arrow(columns=["slot"])
        except Exception:  # nothing is archived yet
            return 0
        return rows.num_rows * (len(set(rows["slot"].to_pylist())) >= slots)

    until(lambda: games(2), "games of two players", lambda: cluster.job("logs", job))
    cluster.write(3)
    cluster.up("--no-restart")
    until(lambda: games(3), "games of the worker that came later", lambda: cluster.job("logs", job))
    first, second = cluster.hosts.addresses[1:3]
    cluster.hosts.cut(first)
    cluster.hosts.kill(second)
    before = sound("s3://bucket/run").num_rows
    until(lambda: games(3) > before + 500, "games of the one that is left", lambda: cluster.job("logs", job))
    cluster.job("stop", job)
    assert "saved" in cluster.job("logs", job)
    rows = sound("s3://bucket/run")
    assert rows.num_rows > before + 500
    cluster.hosts.mend(first)
    cluster.hosts.boot(second)
    cluster.ray("down", "-y", str(cluster.file))
    for address in cluster.hosts.addresses:
        assert "raylet" not in cluster.hosts.run(address, "ps -e").stdout
