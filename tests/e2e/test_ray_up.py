"""`ray up` for real, over ssh, onto hosts with addresses of their own: nodes, the driver and the head are lost."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay import store
from selfplay.store.table.counters import WRITERS_PER_DRIVER
from tests.e2e import hosts as made
from tests.e2e.launched import BIN, OURS, Cluster, bucket, until
from tests.unit.test_notice import Metadata

RUN = "s3://bucket/run"


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
        hosts.add(4, {**variables, "RAY_AUTH_MODE": "token", "SELFPLAY_NOTICE": "/tmp/ray/notice"})
        with pytest.MonkeyPatch.context() as here:
            for name, value in variables.items():
                here.setenv(name, value)
            until(lambda: bucket(hosts.gateway), "the S3 server")
            yield Cluster(hosts, 2)
    finally:
        hosts.close()
        if server is not None:
            server.kill()


def archived(column: str) -> list[Any]:
    """Of every game in the corpus; none while there is none."""
    try:
        return list(store.open(RUN).to_arrow(columns=[column])[column].to_pylist())
    except Exception:  # the table is being made at this moment
        return []


def drivers() -> set[int]:
    """The epochs of the drivers whose players have archived games."""
    return {epoch // WRITERS_PER_DRIVER for epoch in archived("epoch")}


def newest() -> int:
    """The newest version that has played an archived game; -1 where there is none."""
    return max((span["version"] for spans in archived("policy_spans") for span in spans), default=-1)


@contextlib.contextmanager
def noticed(cluster: Cluster, address: str) -> Iterator[None]:
    """A host whose cloud, for which a server here stands in, says that it will be taken."""
    server = ThreadingHTTPServer((cluster.hosts.gateway, 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listens = f"SELFPLAY_METADATA=http://{cluster.hosts.gateway}:{server.server_port} PATH={BIN}:$PATH"
    with pytest.MonkeyPatch.context() as here, ThreadPoolExecutor(1) as pool:
        here.setattr(Metadata, "noticed", True)
        ended = pool.submit(cluster.hosts.run, address, f"{listens} python -m selfplay.actors.notice aws")
        yield
        assert ended.result().returncode == 0, ended.result().stderr  # Ray drains the node
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_nodes_come_and_go_and_nothing_is_lost(
    cluster: Cluster, quick: list[str], sound: Callable[..., pa.Table]
) -> None:
    cluster.up()
    asked = ["--set=selfplay.actors=3", "--address=auto"]  # one more than there are nodes yet
    job = cluster.submit("run", "tic_tac_toe", f"--out={RUN}", "--minutes=60", *quick, *asked)

    def told() -> str:
        return cluster.job("logs", job)

    until(lambda: len(set(archived("slot"))) >= 2, "games of two players", told)
    cluster.write(3)
    failing = cluster.fail_to_start(cluster.hosts.addresses[3])
    cluster.up("--no-restart")
    until(lambda: len(set(archived("slot"))) >= 3, "games of the worker that came later", told)
    assert not failing.exists()  # it was tried again
    found = cluster.submit("doctor", "--cluster", "--address=auto", "--out=s3://bucket/x", wait=True)
    assert found.count("answers: ") == 4 and "4 nodes, 3 cores" in found and "✗" not in found, found
    refused = cluster.here("run", "tic_tac_toe", f"--out={RUN}", "--minutes=60", *quick)
    assert refused.returncode == 2 and f"{RUN} is held by selfplay run tic_tac_toe" in refused.stderr, refused.stderr
    first, second = cluster.hosts.addresses[1:3]
    with noticed(cluster, second):
        until(lambda: "leaves a node that has been given notice" in told(), "that a player leaves in order", told)
    assert "aborted" in archived("status")  # what it was playing
    cluster.hosts.cut(first)
    cluster.hosts.kill(second)
    before = len(archived("slot"))
    until(lambda: len(archived("slot")) > before + 200, "games of the one that is left", told)
    cluster.hosts.mend(first)  # what lived on there must not harm
    cluster.job("stop", job)
    assert "saved" in told()
    rows = sound(RUN)
    assert rows.num_rows > before + 200
    cluster.hosts.boot(second)
    cluster.down()


@pytest.mark.slow
def test_the_same_command_goes_on_without_driver_and_without_head(
    cluster: Cluster, quick: list[str], sound: Callable[..., pa.Table]
) -> None:
    command = ["run", "tic_tac_toe", f"--out={RUN}", "--minutes=60", *quick, "--address=auto"]
    cluster.up()
    jobs = [cluster.submit(*command)]

    def told() -> str:
        return cluster.job("logs", jobs[-1])

    until(lambda: len(set(archived("slot"))) >= 2 and newest() >= 1, "that two play, and a net that has learned", told)
    old = cluster.processes(*OURS)
    assert {name.partition(".")[0] for name in old.values()} >= {"ray::Player", "ray::Archivist"}
    cluster.hosts.run(cluster.head, "pkill -9 -f 'bin/[s]elfplay run'")
    since = time.monotonic()
    jobs.append(cluster.submit(*command))
    until(lambda: 2 in drivers(), "games of the second driver", told)
    print(f"driver killed: archived again after {time.monotonic() - since:.0f} s")
    until(lambda: not old.keys() & cluster.processes(*OURS).keys(), "the end of the first driver's actors")
    print(f"driver killed: its last actor gone after {time.monotonic() - since:.0f} s at most")

    cluster.hosts.kill(cluster.head)
    since = time.monotonic()
    cluster.hosts.boot(cluster.head)
    cluster.up()
    print(f"head lost: up again after {time.monotonic() - since:.0f} s")
    jobs.append(cluster.submit(*command))
    until(lambda: 3 in drivers(), "games of the third driver", told)
    print(f"head lost: archived again after {time.monotonic() - since:.0f} s")
    before = newest()
    until(lambda: newest() > before, "a newer version at play", told)
    cluster.job("stop", jobs[-1])
    assert "saved" in told()

    rows = sound(RUN)
    versions: dict[int, list[int]] = {}
    for epoch, spans in zip(rows["epoch"].to_pylist(), rows["policy_spans"].to_pylist(), strict=True):
        played = [span["version"] for span in spans if span["policy_id"] != "random"]
        versions.setdefault(epoch // WRITERS_PER_DRIVER, []).extend(played)
    assert sorted(versions) == [1, 2, 3]
    assert max(versions[1]) <= min(versions[2]) and max(versions[2]) <= min(versions[3])
