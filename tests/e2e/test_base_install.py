"""The base install, in an environment of its own, reads and verifies a corpus that an earlier version wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "corpus_v1"
HEAVY = ("torch", "ray", "numba", "gymnasium", "wandb", "pandas")


@pytest.mark.slow
def test_it_reads_and_verifies_a_golden_corpus(tmp_path: Path) -> None:
    source, place, corpus = tmp_path / "source", tmp_path / "venv", tmp_path / "corpus"
    source.mkdir()
    for package in ("selfplay", "envs", "trainers"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    shutil.copytree(GOLDEN, corpus)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", source]
    subprocess.run(pip, check=True, cwd=tmp_path)

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        line = [str(place / "bin" / str(command[0])), *map(str, command[1:])]
        state = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}  # the key that signs the release
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=state)

    code = (
        "from importlib.util import find_spec; from selfplay import store; import sys; "
        f"print([m for m in {HEAVY!r} if find_spec(m)], store.open(sys.argv[1]).count())"
    )
    assert run("python", "-c", code, corpus).stdout.split("]") == ["[", " 20\n"]
    verified = run("selfplay", "corpus", "verify", corpus, "--json")
    assert verified.returncode == 0, verified.stderr
    told = json.loads(verified.stdout)
    assert (told["true"], told["false"], told["not checkable"]) == (17, 0, 3)
    shown = run("selfplay", "corpus", "stats", corpus)
    assert shown.returncode == 0 and "20 episodes" in shown.stdout
    asked = run("selfplay", "corpus", "query", "select count(*) from steps", corpus, "--json")
    assert asked.returncode == 0 and json.loads(asked.stdout)["count_star()"] > 80
    fed = run("python", "-c", "from selfplay import store; import sys; store.open(sys.argv[1]).to_torch()", corpus)
    assert "[factory]'" in fed.stderr
    exported = run("selfplay", "corpus", "export", "pgn", corpus, tmp_path / "out")
    assert exported.returncode == 2 and "[export]'" in exported.stderr
    released = run("selfplay", "corpus", "release", "first", corpus)
    assert released.returncode == 0, released.stderr
    verifier = run("python", "-I", corpus / "released" / "first" / "verify_corpus.py", corpus)
    assert verifier.returncode == 0, verifier.stdout + verifier.stderr
    assert "signed by ed25519:" in verifier.stdout
