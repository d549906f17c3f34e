"""A kind of run of another distribution: it trains, archives, goes on and is shown, without a word of it in ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfplay import store
from selfplay.io import run_files

Start = Callable[..., Any]
PLUGIN = Path(__file__).parents[1] / "kind_dist"
RECIPE = """
name = "coin"
coin.id = "tic_tac_toe"
run.minutes = 0.05
"""


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A PYTHONPATH on which the distribution is installed."""
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(PLUGIN, source)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True, capture_output=True, text=True)
    return os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.slow
def test_it_runs_and_goes_on(start: Start, sound: Callable[..., Any], tmp_path: Path, installed: str) -> None:
    recipe, out = tmp_path / "coin.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    driver = start(str(recipe), "--out", out, "--json", PYTHONPATH=installed)
    assert driver.wait() == 0, driver.told
    status = driver.summary()["status"]
    assert status["phase"] == "finished" and status["episodes"] >= 20 and status["version"] >= 1
    assert "mean" in driver.told  # on the screen of those that have none of their own
    corpus = store.open(str(out))
    assert corpus.count() == status["episodes"] and sound(out) is not None
    told = json.loads((out / run_files.STATUS_FILE).read_text())
    assert told["kind"] == "coin"

    driver = start("--out", out, "--set=run.minutes=0.1", "--json", PYTHONPATH=installed)
    assert driver.wait() == 0, driver.told
    later = driver.summary()["status"]
    assert later["episodes"] > status["episodes"] and later["version"] > status["version"]
    assert store.open(str(out)).count() == later["episodes"]
    shown = subprocess.run(
        [sys.executable, "-m", "selfplay.cli.main", "top", str(out), "--once"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": installed},
    )  # fmt: skip
    assert shown.returncode == 0 and "episodes" in shown.stdout, shown.stderr


@pytest.mark.slow
def test_without_it_the_run_is_refused(start: Start, tmp_path: Path, installed: str) -> None:
    recipe = tmp_path / "coin.toml"
    recipe.write_text(RECIPE)
    driver = start(str(recipe), "--out", tmp_path / "run")
    assert driver.wait() == 2 and "there is no setting coin" in driver.told
