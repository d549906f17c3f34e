"""Joining a Ray cluster that others have started: two nodes here, each with a raylet of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

import envs

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]


OURS = tuple(f"ray::{name}" for name in ("Player", "Student", "Examiner", "Archivist", "WeightServer"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with one core each. Nothing but its address reaches the run."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def actors(cluster: Cluster) -> list[str]:
    """Titles of our actors on the nodes of the cluster."""
    titles = []
    for node in cluster.list_all_nodes():
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # one that is just ending has no title
                title = " ".join(process.cmdline())
                if title.startswith(OURS):
                    titles.append(title)
    return titles


@pytest.mark.slow
@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_run_joins_a_cluster_and_leaves_it_as_it_was(
    start: Start, sound: Sound, tmp_path: Path, quick: list[str], cluster: Cluster, by: str
) -> None:
    source = (Path(envs.__file__).with_name("README.md")).read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "four_on_five.py").write_text(source)  # the nodes' workers find it by its text alone
    out = tmp_path / "run"
    small = ["--set=net.channels=8", "--set=net.blocks=1", "--set=run.positions=2500", "--set=selfplay.opening_plies=2"]
    words = ["./four_on_five.py", "--out", out, *quick, *small, "--json"]
    if by == "option":
        driver = start(*words, "--address", cluster.address)
    else:
        driver = start(*words, RAY_ADDRESS=cluster.address)

    def both_play() -> bool:
        return sum("Player" in title for title in actors(cluster)) >= 2

    driver.until(both_play, "a player on each node")
    assert driver.wait() == 0, driver.told
    assert "a Ray cluster: 2 cores" in driver.told
    from selfplay import registry

    registry.find(str(tmp_path / "four_on_five.py"))
    rows = sound(out)
    assert driver.summary()["status"]["episodes"] == rows.num_rows > 0
    assert driver.summary()["status"]["version"] >= 1
    end = time.monotonic() + 60
    while left := actors(cluster):
        assert time.monotonic() < end, left
        time.sleep(0.2)
    assert len(cluster.list_all_nodes()) == 2
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


def test_a_cluster_that_is_not_there(start: Start, quick: list[str]) -> None:
    driver = start("tic_tac_toe", *quick, "--address", "127.0.0.1:1", "--json")
    assert driver.wait() == 2, driver.told
    assert "Ray at 127.0.0.1:1 cannot be used" in driver.told and "Traceback" not in driver.told
