"""What the contract tests share: the game of envs/README.md, and how to run a command on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "envs" / "README.md"


def _blocks() -> list[str]:
    """The Python code blocks of envs/README.md, as they stand there."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2, "envs/README.md shows one game and one task"
    return blocks


@pytest.fixture(scope="session")
def readme_game() -> str:
    """The game of envs/README.md."""
    return _blocks()[0]


@pytest.fixture(scope="session")
def readme_task() -> str:
    """The task of envs/README.md."""
    return _blocks()[1]


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line of Python in a process of its own. path: a folder of distributions to be found besides."""

    def run(line: str, *arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(path or "")}
        command = [sys.executable, "-c", line, *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)

    return run
