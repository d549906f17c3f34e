"""Joining a Ray cluster that others have started: two nodes here, each with a raylet of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

import envs
from selfplay import store
from selfplay.io import run_files

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]
#: Two trials one after the other, on a busy machine.
PATIENCE_S = 900.0


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


def on(node: Any) -> set[str]:
    """Kinds of our actors on a node."""
    titles = set()
    for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            titles |= {kind for kind in OURS if " ".join(process.cmdline()).startswith(kind)}
    return {title.removeprefix("ray::") for title in titles}


@pytest.mark.slow
def test_what_stays_stays_and_players_follow_the_cores(
    start: Start, sound: Sound, tmp_path: Path, quick: list[str]
) -> None:
    """A node joins and is used; another vanishes with all on it, objects that the learner was to get included."""
    head = {"num_cpus": 0, "resources": {"apart": 1}, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        driver = start("tic_tac_toe", "--out", tmp_path / "run", *quick, "--set=run.positions=200000", "--json",
                       "--address", nodes.address)  # fmt: skip
        driver.until(lambda: "waiting for a steady node" in driver.told, "that it waits")
        steady = nodes.add_node(num_cpus=0, resources={"steady": 1})
        first = nodes.add_node(num_cpus=1)
        driver.until_archived(tmp_path / "run", 50)
        notice = tmp_path / "notice"
        second = nodes.add_node(num_cpus=1, env_vars={"SELFPLAY_NOTICE": str(notice)})
        driver.until(lambda: "Player" in on(second), "a player on the node that joined")
        driver.until(lambda: {"Archivist", "Student", "WeightServer", "Examiner"} <= on(steady), "what stays")
        assert on(first) == {"Player"} and not on(nodes.head_node)
        driver.until(lambda: slots(tmp_path / "run") >= {"p0000", "p0001"}, "games of both")
        nodes.remove_node(first, allow_graceful=False)
        driver.until_archived(tmp_path / "run", len(store.open(str(tmp_path / "run")).to_arrow(columns=["slot"])) + 500)
        third = nodes.add_node(num_cpus=1)
        driver.until(lambda: "Player" in on(third), "a player on the next node")
        notice.touch()  # what `selfplay.actors.notice` does when the cloud says that the node will be taken
        driver.until(lambda: "leaves a node that has been given notice" in driver.told, "that it leaves in order")
        driver.interrupt()
        assert driver.wait() == 0, driver.told
        rows = sound(tmp_path / "run")
        assert driver.summary()["status"]["episodes"] == rows.num_rows
        assert driver.summary()["status"]["version"] >= 1
        assert "aborted" in rows["status"].to_pylist()  # what was under way on the node that left
    finally:
        nodes.shutdown()


@pytest.mark.slow
def test_the_node_that_stays_vanishes_too(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    """Archive, weights and learner are lost at once, with weights that nobody has pulled; another node takes them."""
    head = {"num_cpus": 0, "resources": {"apart": 1}, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        steady = nodes.add_node(num_cpus=0, resources={"steady": 1})
        nodes.add_node(num_cpus=1)
        out = tmp_path / "run"
        driver = start("tic_tac_toe", "--out", out, *quick, "--set=run.positions=400000", "--json",
                       "--address", nodes.address)  # fmt: skip
        driver.until(lambda: len(run_files.versions(str(out))) > 2, "versions")
        driver.until(lambda: on(steady) >= {"Archivist", "Student", "WeightServer"}, "what stays")
        nodes.remove_node(steady, allow_graceful=False)
        nodes.add_node(num_cpus=0, resources={"steady": 1})
        before, version = driver.until_archived(out), max(run_files.versions(str(out)))
        driver.until_archived(out, before + 500)
        driver.until(lambda: max(run_files.versions(str(out))) > version + 1, "versions of another learner")
        driver.interrupt()
        assert driver.wait() == 0, driver.told
        assert driver.summary()["status"]["episodes"] == sound(out).num_rows
    finally:
        nodes.shutdown()


def slots(run: Path) -> set[str]:
    """Who has archived games."""
    return set(store.open(str(run)).to_arrow(columns=["slot"])["slot"].to_pylist())


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
    from selfplay.environments import registry

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


def selfplay(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("selfplay")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.slow
def test_the_doctor_looks_at_every_node(s3_uri: str, cluster: Cluster) -> None:
    done = selfplay("doctor", "--cluster", "--address", cluster.address, "--out", s3_uri, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert sum(finding["text"].startswith("answers: 1 cores") for finding in found) == 2
    assert found[-1]["subject"] == "cluster" and found[-1]["text"].startswith("2 nodes, 2 cores")
    done = selfplay("doctor", "--cluster", "--address", cluster.address, "--out", "s3://no-such-bucket", "--json")
    assert done.returncode == 1
    assert sum("s3://no-such-bucket cannot be used" in finding["text"] for finding in json.loads(done.stdout)) == 2


def test_the_doctor_needs_a_cluster() -> None:
    done = selfplay("doctor", "--cluster")
    assert done.returncode == 2 and "say which cluster" in done.stderr
    done = selfplay("doctor", "--cluster", "--address", "127.0.0.1:1")
    assert done.returncode == 2 and "cannot be used" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_trials_are_runs(tmp_path: Path, quick: list[str], sound: Sound, s3_uri: str, place: str) -> None:
    (tmp_path / "space.toml").write_text('"learner.lr" = { min = 1e-4, max = 1e-2, log = true }\n"net.blocks" = [1]\n')
    out = str(tmp_path / "tune") if place == "folder" else f"{s3_uri}/tune"
    words = ["--space", tmp_path / "space.toml", "--out", out, "--trials", "2", "--set=net.channels=8"]
    done = selfplay("tune", "tic_tac_toe", *words, *quick, "--set=run.positions=2000", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(done.stdout.splitlines()[-1])["trials"]
    assert len(trials) == 2 and not any(trial["error"] for trial in trials)
    assert trials[0]["score"] >= trials[1]["score"]
    for trial in trials:
        assert 1e-4 <= trial["settings"]["learner.lr"] <= 1e-2
        assert sound(trial["out"]).num_rows > 0


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ("", "names no setting"),
        ('"net.nonsense" = [1]', "there is no setting net.nonsense"),
        ('"learner.lr" = 3', "must be a list of values"),
        ('"learner.lr" = ["fast"]', "expected a number"),
        ("[", "is not valid TOML"),
    ],
)
def test_a_space_that_cannot_be_used(tmp_path: Path, space: str, reason: str) -> None:
    (tmp_path / "space.toml").write_text(space)
    done = selfplay("tune", "tic_tac_toe", "--space", tmp_path / "space.toml", "--out", tmp_path / "tune")
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert not (tmp_path / "tune").exists()
