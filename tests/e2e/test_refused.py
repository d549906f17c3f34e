"""What cannot be done is refused in one sentence, with exit code 2, and nothing that was there is harmed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay import agent, store
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.io import run_files
from selfplay.nets import weights
from selfplay.nets.policy_value import build, to_arrays
from trainers.alphazero.actors import net_config, search_config
from trainers.alphazero.learner import AlphaZeroLearner
from trainers.kinds import SELF_PLAY
from trainers.recipe import load_recipe
from trainers.run.run_folder import RunFolder

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]


def refused(driver: Any, *parts: str) -> None:
    """One sentence on standard error that says all of this, nothing else."""
    assert driver.wait() == 2, driver.told
    sentences = [line for line in driver.told.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "Traceback" not in driver.told, driver.told
    for part in parts:
        assert part in sentences[0], sentences[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, except who held the run when."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.parent.name not in ("lease", "logs")}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of tic_tac_toe that has just begun: everything a folder holds, but for games."""
    config = load_recipe("tic_tac_toe")
    folder = RunFolder(str(tmp_path / "run"), config, SELF_PLAY)
    game = load(registry.find("tic_tac_toe"))
    net, search = net_config(config, game), search_config(config)
    folder.begin(agent.describe(game, net, search, folder.run_id))
    store.Committer(folder.corpus, folder.run_id, 1)
    tensors = to_arrays(build(net, 0))
    weights.save(run_files.weights_uri(folder.uri, 0), tensors, {"kind": "weights", "version": 0})
    AlphaZeroLearner(net).save(folder.checkpoint_uri("one.safetensors"))
    folder.state.checkpoint, folder.state.version = "one.safetensors", 0
    folder.save()
    return tmp_path / "run"


def test_before_anything_starts(start: Start, tmp_path: Path) -> None:
    cases = [
        (["tic_tac_to"], ["did you mean tic_tac_toe"]),
        (["openspiel:hexx"], ["'hexx'", "hex"]),
        (["openspiel:kuhn_poker"], ["kuhn_poker", "chance"]),
        (["openspiel:goofspiel"], ["goofspiel", "simultaneous"]),
        (["tic_tac_toe", "--set=search.simulatons=4"], ["search.simulatons", "search.simulations"]),
        (["tic_tac_toe", "--set=search.simulations=many"], ["search.simulations", '"many"', "a whole number"]),
        (["--out", tmp_path / "nowhere"], ["no run in", "nowhere"]),
    ]
    drivers = [(start(*arguments), parts) for arguments, parts in cases]
    for driver, parts in drivers:
        refused(driver, *parts)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_of_another_run(start: Start, run: Path) -> None:
    before = contents(run)
    refused(start("connect_four", "--out", run), "holds another run", "'tic_tac_toe'", "--out")
    refused(start("tic_tac_toe", "--out", run, "--set=net.channels=16"), "net.channels is 32 there and 16 here")
    assert contents(run) == before


def test_a_newer_state(start: Start, run: Path) -> None:
    (state,) = (run / "state").iterdir()
    for name in (f"state/{state.name}", "run.json"):
        kept = (run / name).read_bytes()
        (run / name).write_text(json.dumps({**json.loads(kept), "schema": 99, "unheard": 1}))
        before = contents(run)
        refused(start("tic_tac_toe", "--out", run), name.split("/")[0], "schema 99", "upgrade")
        assert contents(run) == before
        (run / name).write_bytes(kept)
    (run / "config.json").write_text((run / "config.json").read_text().replace('"seed"', '"sead"'))
    refused(start("tic_tac_toe", "--out", run), "config.json", "run.sead")


def test_a_newer_corpus(start: Start, run: Path) -> None:
    (log,) = (run / "corpus" / "episodes" / "_delta_log").glob("*00000.json")
    log.write_text(re.sub(r"schema_version=\d+", "schema_version=99", log.read_text()))
    before = contents(run)
    refused(start("tic_tac_toe", "--out", run), "schema version 99", "newer")
    assert contents(run) == before


@pytest.mark.slow
def test_a_newer_checkpoint(start: Start, run: Path) -> None:
    place = run / "checkpoints" / "one.safetensors"
    tensors, meta = weights.load(str(place))
    weights.save(str(place), tensors, {**meta, "learner_schema": 99})
    before = contents(run / "checkpoints")
    refused(start("tic_tac_toe", "--out", run), place.name, "newer schema", "upgrade")
    assert contents(run / "checkpoints") == before
    assert run_files.read_state(str(run))["checkpoint"] == place.name


@pytest.mark.slow
def test_a_run_that_is_held(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    first = start("tic_tac_toe", "--out", out, "--minutes", "30", *quick)
    first.until_archived(out)
    refused(start("tic_tac_toe", "--out", out), "is held by selfplay run tic_tac_toe", str(first.process.pid))
    now = store.open(str(out)).count()
    first.until_archived(out, now)
    first.interrupt()
    assert first.wait() == 0, first.told
    sound(out)


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(start: Start, tmp_path: Path) -> None:
    driver = start("tic_tac_toe", "--out", tmp_path / "run", "--set=learner.device=cuda")
    refused(driver, "learner.device = cuda", "GPU")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk(start: Start, sound: Sound, small_disk: Path, tmp_path: Path, quick: list[str]) -> None:
    out = small_disk / "run"
    command = ["tic_tac_toe", "--out", out, "--minutes", "30", *quick]
    driver = start(*command)
    refused(driver, "the disk", "full")
    there = sound(out)
    assert there.num_rows >= driver.games_told
    # Room is made: the run goes on, with all that was told.
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    driver = start(*command, "--minutes", "0.05")
    assert driver.wait() == 0, driver.told
    assert set(there["episode_id"].to_pylist()) < set(sound(out)["episode_id"].to_pylist())
