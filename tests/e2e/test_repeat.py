"""A run repeats: the same settings give the same games and the same net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay.io import run_files

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]


def played(rows: pa.Table) -> list[dict[str, Any]]:
    """What was done and thought in every game, without what tells one run from the other."""
    columns = ["slot", "epoch", "number", "seed", "status", "returns", "policy_spans", "game"]
    games = rows.select(columns).to_pylist()
    for game in games:
        game["policy_spans"] = [{**span, "policy_id": ""} for span in game["policy_spans"]]
    return sorted(games, key=lambda game: (game["slot"], game["epoch"], game["number"]))


def both(start: Start, sound: Sound, folder: Path, *arguments: str) -> None:
    ends = []
    for name in ("first", "second"):
        driver = start(*arguments, "--out", folder / name, "--set=run.deterministic=true", "--json")
        assert driver.wait() == 0, driver.told
        status = driver.summary()["status"]
        policies = sorted((path.name, path.read_bytes()) for path in (folder / name / "weights").iterdir())
        digest = run_files.read_state(str(folder / name))["digest"]
        ends.append((played(sound(folder / name)), digest, status["version"], status["learner_steps"], policies))
    assert ends[0][2] >= 2, "nothing was learned: the test shows nothing"
    assert len(ends[0][0]) == len(ends[1][0])
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        assert one == other
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_deterministic_run_repeats(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    both(start, sound, tmp_path, "tic_tac_toe", *quick, "--set=run.positions=3000")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["--set=selfplay.actors=2"],
        ["--set=search.algorithm=puct", "--set=search.full_fraction=0.5", "--set=search.cheap_simulations=2"],
        ["--set=selfplay.resign_threshold=0.9", "--set=learner.ema=0.9", "--set=selfplay.cache_entries=0"],
    ],
    ids=["two players", "puct", "resignation"],
)
def test_other_settings_repeat_too(
    start: Start, sound: Sound, tmp_path: Path, quick: list[str], settings: list[str]
) -> None:
    both(start, sound, tmp_path, "connect_four", *quick, "--set=run.positions=6000", *settings)
