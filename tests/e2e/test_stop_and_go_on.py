"""Stopped by Ctrl-C or killed, at any time: the run that is left is valid, and the same command goes on with it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay import store
from selfplay.io import run_files
from selfplay.nets import weights

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]


def state_of(out: Path) -> dict[str, Any]:
    return run_files.read_state(str(out))


def learned(out: Path) -> dict[str, Any]:
    """What the newest checkpoint says of the learner."""
    return weights.load(str(out / "checkpoints" / state_of(out)["checkpoint"]))[1]


def has_learned(out: Path, version: int) -> bool:
    """Whether a version as new as this was published and measured."""
    newest = max((int(path.stem) for path in (out / "weights").glob("*.safetensors")), default=-1)
    return newest >= version and bool(state_of(out).get("matches"))


def test_interrupted_and_killed_it_goes_on(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", *quick]

    # Ctrl-C in full swing: games under way are archived, but not to be learned from.
    driver = start(*command)
    driver.until(lambda: has_learned(out, 2), "version 2")
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    rows = sound(out)
    cut = [row for row in rows.select(["status", "trainable"]).to_pylist() if row["status"] == "aborted"]
    assert cut and not any(row["trainable"] for row in cut)
    identity = json.loads((out / "run.json").read_text())
    stopped, learner = state_of(out), learned(out)
    assert stopped["version"] >= 2 and learner["step"] > 0 and stopped["lost_games"] == 0

    # kill -9 in full swing.
    driver = start(*command)
    told = driver.until(lambda: driver.games_told > rows.num_rows and driver.games_told, "new games")
    driver.until_archived(out, told)
    driver.kill()
    driver.until_gone()
    killed = sound(out)
    assert killed.num_rows >= driver.games_told, "archived games were lost"
    assert set(rows["episode_id"].to_pylist()) < set(killed["episode_id"].to_pylist())

    # The same command once more, to the end.
    driver = start(*command, "--minutes", "0.1", "--json")
    assert driver.wait() == 0, driver.told
    summary = driver.summary()
    rows = sound(out)
    assert set(killed["episode_id"].to_pylist()) < set(rows["episode_id"].to_pylist())
    assert summary["run_id"] == identity["run_id"]
    assert summary["status"]["episodes"] == rows.num_rows
    assert sorted(store.open(str(out)).table("runs")["epoch"].to_pylist()) == [1, 2, 3]
    ended = state_of(out)
    assert ended["version"] >= stopped["version"] and ended["wandb_id"] == stopped["wandb_id"] is not None
    assert ended["matches"][: len(stopped["matches"])] == stopped["matches"]
    assert ended["lost_games"] > 0, "the games in flight at the kill were not counted"
    after = learned(out)
    assert after["step"] >= learner["step"] and after["samples"] >= learner["samples"]
    learnable = sum(
        step["full_search"] and bool(step["candidates"])
        for row in rows.select(["trainable", "game"]).to_pylist()
        if row["trainable"]
        for step in row["game"]["steps"]
    )
    assert after["total"] == learnable, "the learner has not seen every archived position once"
    assert summary["status"]["window_rows"] > 0


@pytest.mark.slow
def test_every_actor_may_be_killed(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    driver = start("tic_tac_toe", "--out", out, "--minutes", "30", "--set=run.checkpoint_every_s=2", *quick)
    driver.until(lambda: has_learned(out, 1) and state_of(out)["checkpoint"], "version 1 and a checkpoint")
    for kind in ("Player", "Archivist", "Student", "Examiner", "WeightServer"):
        victim = driver.until(lambda kind=kind: driver.actor(kind), kind)
        victim.kill()
        driver.until(lambda v=victim, kind=kind: (p := driver.actor(kind)) and p.pid != v.pid, f"another {kind}")
        driver.until_archived(out, store.open(str(out)).count())
    version = state_of(out)["version"]
    driver.until(lambda: has_learned(out, version + 2), "two more versions")
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    rows = sound(out)
    assert len({epoch for epoch in rows["epoch"].to_pylist()}) > 1, "no player took another's place"
    state = state_of(out)
    assert 0 < state["lost_games"] <= 32 and state["lost_plies"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_commit:3", "before_commit:3", "before_write:3", "after_write:3"])
def test_killed_at_named_points(start: Start, sound: Sound, tmp_path: Path, quick: list[str], point: str) -> None:
    """The archivist, or players, die again and again at this very point, while versions change."""
    out = tmp_path / "run"
    positions = 900 if point.endswith("_write:3") else 8000  # who dies at each third write makes few; a learner has
    end = [f"--set=run.positions={positions}", "--json"]  # to have loaded before the others have made all of them
    driver = start("tic_tac_toe", "--out", out, *end, *quick, SELFPLAY_FAULT=point)
    assert driver.wait() == 0, driver.told
    rows = sound(out)
    status = driver.summary()["status"]
    assert status["version"] >= 1
    assert status["episodes"] == rows.num_rows
    if point.endswith("_write:3"):
        assert status["lost"]["count"] > 0
    else:
        assert status["lost"]["count"] == 0


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder for everything temporary; its path is short, as Ray puts sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="sp-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_all_local_files_are_lost(start: Start, sound: Sound, s3_uri: str, disk: Path, quick: list[str]) -> None:
    """Run folder and corpus on S3; everything is killed, and this machine's disk is gone."""
    out = f"{s3_uri}/runs/ttt"
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", "--set=run.checkpoint_every_s=2", *quick]
    driver = start(*command, TMPDIR=str(disk))
    driver.until(lambda: driver.games_told > 100, "100 games")
    for process in driver.alive():
        process.kill()
    driver.until_gone()
    assert any(disk.iterdir()), "nothing was on the disk at all"
    shutil.rmtree(disk)
    disk.mkdir()
    before = sound(out)
    assert before.num_rows >= driver.games_told
    driver = start(*command, "--minutes", "0.1", "--json", TMPDIR=str(disk))
    assert driver.wait() == 0, driver.told
    rows = sound(out)
    assert set(before["episode_id"].to_pylist()) < set(rows["episode_id"].to_pylist())
    summary = driver.summary()
    assert summary["status"]["episodes"] == rows.num_rows
    assert store.open(out).table("runs").num_rows == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_instants(start: Start, sound: Sound, tmp_path: Path, quick: list[str], seed: int) -> None:
    out = tmp_path / "run"
    rng = random.Random(seed)
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", "--set=run.checkpoint_every_s=1", *quick]
    there: set[str] = set()
    for _ in range(4):
        driver = start(*command)
        driver.until_archived(out, len(there))
        time.sleep(rng.uniform(0, 8))
        driver.kill()
        driver.until_gone()
        now = set(sound(out)["episode_id"].to_pylist())
        assert there <= now and len(now) >= driver.games_told
        there = now
    driver = start(*command, "--minutes", "0.05")
    assert driver.wait() == 0, driver.told
    assert there < set(sound(out)["episode_id"].to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_stopped_at_any_moment_of_the_beginning(
    start: Start, sound: Sound, tmp_path: Path, quick: list[str], how: str
) -> None:
    """From the first import to the first games, again and again on the same run."""
    out = tmp_path / "run"
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", *quick]
    there: set[str] = set()
    for tenths in (2, 6, 10, 15, 20, 30, 40, 60, 80, 110):
        driver = start(*command)
        time.sleep(tenths / 10)
        getattr(driver, how)()
        code = driver.wait()
        if how == "interrupt" and code == -signal.SIGINT and "/selfplay/cli/" not in driver.told:
            continue  # the interpreter had not come to our first line yet
        if how == "interrupt":  # 130: before the run had begun
            assert code == 0 or (code == 130 and "error: aborted" in driver.told), (code, driver.told)
        assert "Traceback" not in driver.told
        if (out / "corpus").exists():
            now = {str(name) for name in sound(out)["episode_id"].to_pylist()}
            assert there <= now and len(now) >= driver.games_told
            there = now
    driver = start(*command, "--set=run.positions=3000", "--json")
    assert driver.wait() == 0, driver.told
    assert driver.summary()["status"]["episodes"] == sound(out).num_rows > len(there)


@pytest.mark.slow
def test_a_second_interrupt_aborts(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", *quick]
    driver = start(*command)
    driver.until_archived(out)
    driver.interrupt()
    time.sleep(0.3)
    driver.interrupt()
    code = driver.wait()
    assert code == 0 or (code == 130 and "error: aborted" in driver.told), (code, driver.told)
    there = set(sound(out)["episode_id"].to_pylist())
    driver = start(*command, "--minutes", "0.05")
    assert driver.wait() == 0, driver.told
    assert there < set(sound(out)["episode_id"].to_pylist())
