"""envs/README.md does what it says, in a folder that is not the clone; README.md says what "true" covers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Python = Callable[..., subprocess.CompletedProcess[str]]
MAIN = "from selfplay.cli.main import main; main()"
LIGHT = """
import json, sys
from selfplay.environments import registry
from selfplay.environments.checks.game_check import check
from selfplay.environments.checks.task_check import check_task
from selfplay.environments.checks import child, twin
from selfplay.cli import check_env
from selfplay.contract import GameSpec
spec = registry.find_any(sys.argv[1])
print(json.dumps((check if isinstance(spec, GameSpec) else check_task)(spec).as_dict()))
heavy = sorted({"torch", "ray", "numba", "gymnasium", "pyarrow", "deltalake"} & set(sys.modules))
assert not heavy, heavy
"""


def test_the_game_passes_the_check(tmp_path: Path, readme_game: str, python: Python) -> None:
    (tmp_path / "four_on_five.py").write_text(readme_game, encoding="utf-8")
    done = python(MAIN, "check-env", "./four_on_five.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "✓ symmetries" in done.stdout
    assert "all checks passed" in done.stdout
    assert "selfplay run ./four_on_five.py" in done.stdout


def test_a_fault_is_told_and_fails(tmp_path: Path, readme_game: str, python: Python) -> None:
    """The fault and the line that envs/README.md shows."""
    text = readme_game.replace("actions=tuple(SQUARES[:, ::-1].flat)", "actions=tuple(SQUARES.T.flat)", 1)
    (tmp_path / "four_on_five.py").write_text(text, encoding="utf-8")
    done = python(MAIN, "check-env", "./four_on_five.py", cwd=tmp_path)
    assert done.returncode == 1
    printed = " ".join(done.stdout.split())
    readme = (Path(__file__).parents[2] / "envs" / "README.md").read_text(encoding="utf-8")
    shown = " ".join(line.removeprefix(">").strip() for line in readme.splitlines() if line.startswith(">"))
    assert shown in printed, printed


def test_the_check_needs_neither_torch_nor_ray(tmp_path: Path, readme_game: str, python: Python) -> None:
    (tmp_path / "four_on_five.py").write_text(readme_game, encoding="utf-8")
    done = python(LIGHT, "./four_on_five.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"]


def test_the_task_is_short_and_passes_the_check(tmp_path: Path, readme_task: str, python: Python) -> None:
    assert len([line for line in readme_task.splitlines() if line.strip()]) <= 25
    (tmp_path / "digit_sum.py").write_text(readme_task, encoding="utf-8")
    done = python(MAIN, "check-env", "./digit_sum.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "hostile text neither runs, hangs nor passes" in done.stdout and "all checks passed" in done.stdout
    light = python(LIGHT, "./digit_sum.py", cwd=tmp_path)
    assert (light.returncode, light.stderr) == (0, "")


def test_a_task_that_evaluates_is_told_and_fails(tmp_path: Path, readme_task: str, python: Python) -> None:
    text = readme_task.replace("said.answer.strip() == gold(problem)", "eval(said.answer) == int(gold(problem))")
    assert text != readme_task
    (tmp_path / "digit_sum.py").write_text(text, encoding="utf-8")
    done = python(MAIN, "check-env", "./digit_sum.py", cwd=tmp_path)
    assert done.returncode == 1 and "✗ hostile text" in done.stdout


def test_the_readme_says_what_true_covers() -> None:
    from selfplay.store.coverage import told

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert " ".join(told().split()) in " ".join(readme.split())
