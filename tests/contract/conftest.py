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


@pytest.fixture(scope="session")
def readme_game() -> str:
    """The Python code block of envs/README.md, as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1, "envs/README.md shows one game"
    return blocks[0]


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line of Python in a process of its own. path: a folder of distributions to be found besides."""

    def run(line: str, *arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(path or "")}
        command = [sys.executable, "-c", line, *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)

    return run
