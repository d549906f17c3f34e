"""The checks of a GPU machine run without ray, OpenSpiel and deltalake, tell what fails, and play the true rules."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyspiel
import pytest

GPU = Path(__file__).parents[1] / "gpu"
#: Python runs a file of this name first, in every process.
BLOCK = """
import sys
for name in ("ray", "pyspiel", "open_spiel", "deltalake", "duckdb", "openvino"):
    sys.modules[name] = None
"""


def checked(folder: Path, *arguments: str) -> tuple[int, list[dict], str]:
    """Exit code, rows and output of the script, where those packages cannot be imported."""
    (folder / "sitecustomize.py").write_text(BLOCK)
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(GPU / "check.py"), "--json", str(out), *arguments],
        capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(out.read_text())["rows"], done.stdout + done.stderr


def test_the_evaluators_part_runs_without_ray(tmp_path: Path) -> None:
    code, rows, text = checked(tmp_path, "--device", "cpu", "--seconds", "600", "--only", "evaluator")
    assert code == 0, text
    verdicts = {row["case"]: row["verdict"] for row in rows}
    assert verdicts["all of it"] == verdicts["16x2 float32 against CPU float32"] == "ok"
    assert verdicts["16x2 tf32 against CPU float32"] == "skipped"
    assert all(row["numbers"]["policy_std"] > 0.5 for row in rows if "policy_std" in row["numbers"]), "else all agree"


@pytest.mark.slow
@pytest.mark.parametrize("check", ["learner", "speed", "games", "language"])
def test_every_part_runs_without_ray(tmp_path: Path, check: str) -> None:
    code, rows, text = checked(tmp_path, "--device", "cpu", "--seconds", "300", "--only", check)
    assert code == 0, text
    assert sum(row["verdict"] == "ok" for row in rows) > 3, text


def test_what_fails_is_told_and_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    from report import MARK, Report, Skip, bounded

    report = Report("one", float("inf"))

    def raises(error: Exception) -> dict:
        raise error

    report.case("breaks", raises, ValueError("why"))
    report.case("skips", raises, Skip("no such thing"))
    report.case("is too large", bounded, {"x": 1.0}, {"x": float("nan")})
    report.case("does not fit", raises, MemoryError())
    report.case("is fine", bounded, {"x": 1.0}, {"x": 0.5})
    report.deadline = 0.0
    report.case("comes too late", raises, ValueError())
    rows = [json.loads(line.removeprefix(MARK)) for line in capsys.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows] == ["FAILED", "skipped", "FAILED", "skipped", "ok", "skipped"]
    assert "ValueError: why (test_gpu_script.py:" in rows[0]["note"]
    assert rows[2]["numbers"] == {"x": "nan"} and rows[4]["numbers"]["x"] == 0.5


def test_the_plain_game_is_open_spiels_connect_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    from plain_game import PlainConnectFour

    from envs.games.connect_four import SPEC
    from selfplay.environments.game import load

    plain, real = PlainConnectFour(), load(SPEC)
    assert isinstance(real.new_initial_state(), pyspiel.State)
    assert (plain.string, plain.num_actions, plain.value_scale) == (real.string, real.num_actions, real.value_scale)
    rng = random.Random(0)
    for _ in range(40):
        mine, theirs = plain.new_initial_state(), real.new_initial_state()
        while not theirs.is_terminal():
            assert mine.legal_actions() == theirs.legal_actions() and not mine.is_terminal()
            assert mine.current_player() == theirs.current_player()
            assert np.array_equal(plain.encoder.encode(mine), real.encoder.encode(theirs))
            action = rng.choice(theirs.legal_actions())
            mine = mine.child(action)
            theirs.apply_action(action)
        assert mine.is_terminal() and mine.current_player() == theirs.current_player()
        assert mine.returns() == theirs.returns() and str(mine) == str(theirs)
