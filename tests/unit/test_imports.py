"""What import-linter cannot see: submodules of other packages, imports by string, and what the base install loads."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("selfplay", "envs", "trainers") for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_only_trainers_and_its_own_export_import_rllib() -> None:
    guilty = [name(path) for path in SOURCES if any(module.startswith("ray.rllib") for module in imported(path))]
    assert all(path.startswith("trainers/") or path == "selfplay/store/export/rllib.py" for path in guilty), guilty


def test_environments_import_only_the_contract() -> None:
    for path in SOURCES:
        if name(path).startswith("envs/"):
            ours = {m for m in imported(path) if m.split(".")[0] in ("selfplay", "trainers")}
            assert all(m == "selfplay.contract" or m.startswith("selfplay.contract.") for m in ours), (name(path), ours)


def test_nobody_outside_imports_a_concrete_environment() -> None:
    guilty = [
        name(path)
        for path in SOURCES
        if not name(path).startswith("envs/") and any(module.split(".")[0] == "envs" for module in imported(path))
    ]
    assert guilty == []


def test_no_import_by_string_gets_around_the_order() -> None:
    """Only the registry, which finds plug-ins, imports by name."""
    guilty = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            word = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if word in ("import_module", "__import__") and name(path) != "selfplay/environments/registry.py":
                guilty.append(name(path))
    assert guilty == []


@pytest.mark.parametrize(
    "module", ["selfplay.store", "selfplay.environments.checks.game_check", "selfplay.cli.main", "trainers.recipe"]
)
def test_the_base_install_is_enough_for(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_three_packages_are_siblings() -> None:
    code = "import selfplay, envs, trainers; print(*(m.__path__[0] for m in (selfplay, envs, trainers)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert {Path(place).parent for place in done.stdout.split()} == {ROOT}


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in ("selfplay", "envs", "trainers", "tests"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    options = ["--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", *options, str(source)], check=True)
    (wheel,) = tmp_path.glob("selfplay_factory-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = ROOT / "selfplay" / "evaluation" / "data"
    for path in [*(ROOT / "trainers" / "recipes").glob("*.toml"), *data.iterdir()]:
        assert name(path) in names
    for needed in ("selfplay/cli/main.py", "selfplay/py.typed", "envs/games/connect_four.py", "envs/README.md"):
        assert needed in names
    assert not any(entry.startswith(("tests/", ".ci/")) for entry in names)
