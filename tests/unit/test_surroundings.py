"""The folder in which a command runs may be a stranger's: nothing in it is imported, and it steers no library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay import surroundings
from selfplay.cli.main import call
from selfplay.environments.isolation import Host
from selfplay.environments.registry import find_task
from selfplay.errors import UserError
from trainers.run.metrics import ScalarWriter
from trainers.run.ray_session import _Job

#: Modules that the helper processes import, of Python's own library and of ours.
NAMES = ("json", "random", "selfplay", "multiprocessing", "socket", "numpy", "envs")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, full of modules that leave a trace where they are imported; the trace."""
    trace = tmp_path / "imported"
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write({name!r}); raise ImportError\n")
    monkeypatch.chdir(folder)
    return trace


def test_the_process_of_a_verifier_imports_nothing_from_the_working_folder(hostile: Path) -> None:
    host = Host(find_task("addition"))
    try:
        assert len(host.make("poses", [[[1, 1.0]]])) == 1
    finally:
        host.close()
    assert not hostile.exists()


def test_processes_beside_this_one_import_nothing_from_the_working_folder(hostile: Path) -> None:
    """As `multiprocessing` starts them."""
    with surroundings.left_out():
        for command in (surroundings.command("import selfplay.errors, json, socket"), _spawned()):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert not hostile.exists()
    assert "PYTHONSAFEPATH" not in os.environ


def _spawned() -> list[str]:
    return [sys.executable, "-c", "from multiprocessing import spawn; import json, random, socket"]


@pytest.mark.parametrize("arguments", [["envs"], ["play", "."], ["corpus", "stats", "."]])
def test_no_command_runs_where_numba_would_take_its_settings(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among them is the folder of compiled code, which numba unpickles."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / surroundings.NUMBA_FILE).write_text("cache_dir: kernels\n")
    assert call(arguments) == 2
    assert surroundings.NUMBA_FILE in capsys.readouterr().err


@pytest.mark.parametrize("name", surroundings.WANDB_FILES)
def test_wandb_is_not_used_where_it_would_take_its_address(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's key would be sent there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    told: list[str] = []
    writer = ScalarWriter(tmp_path / "run", "run", {}, told.append)
    writer.write(1, {"a": 1.0})
    writer.close()
    assert len(told) == 1 and "no longer go to wandb" in told[0] and name in told[0]
    with pytest.raises(UserError, match="another folder"):
        surroundings.refuse_settings(name)


def test_workers_of_ray_do_not_get_the_working_folder() -> None:
    """Ray asks the job whether it brings a folder along before it adds the one of the driver."""
    from ray.job_config import JobConfig

    assert not JobConfig()._runtime_env_has_working_dir()
    assert _Job()._runtime_env_has_working_dir()
