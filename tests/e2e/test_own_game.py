"""What envs/README.md promises to whoever writes a game, done word by word; and games that have no file at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import envs
from selfplay import store
from selfplay.agent import Agent
from selfplay.environments import registry
from selfplay.store.verify.verify import verify_corpus

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]

PLUGIN = Path(__file__).parents[1] / "plugin_dist"
README = Path(envs.__file__).with_name("README.md")
SMALL = ["--set=net.channels=8", "--set=net.blocks=1", "--set=run.positions=2500", "--set=selfplay.opening_plies=2"]


@pytest.mark.slow
def test_the_readme_game_is_trained_and_played(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    text = README.read_text()
    code = re.search(r"called `(\w+\.py)`.*?```python\n(.*?)```", text, re.S)
    assert code is not None
    name, source = code.groups()
    (tmp_path / name).write_text(source)
    shell = [line.split() for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    run = next(words for words in shell if words[:2] == ["selfplay", "run"])
    play = next(words for words in shell if words[:2] == ["selfplay", "play"])
    assert run[2] == f"./{name}" and play[2] == f"runs/{Path(name).stem}"

    driver = start(*run[2:], *quick, *SMALL, "--json")  # positions end it before its minutes do
    assert driver.wait() == 0, driver.told
    out = tmp_path / play[2]
    corpus = store.open(str(out))
    assert driver.summary()["status"]["episodes"] == corpus.count() > 0
    (environment,) = corpus.environments()
    assert environment["source"] == source and environment["env_id"] == "four_on_five-v0"
    assert {check.state for check in verify_corpus(corpus)} == {"not checkable"}, "nobody has trusted the file here"
    registry.find(str(tmp_path / name))
    sound(out)
    agent = Agent.load(str(out))
    assert agent.act(agent.game.new_initial_state(), simulations=4) in range(25)

    executable = str(Path(sys.executable).with_name("selfplay"))
    moves = "\n".join(f"{column}{row}" for column in "abcde" for row in range(1, 6))
    done = subprocess.run(
        [executable, *play[1:]], input=moves, capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "a b c d e" in done.stdout


@pytest.mark.slow
def test_any_openspiel_game_by_its_string(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    driver = start("openspiel:hex(board_size=3)", *quick, *SMALL, "--json")
    assert driver.wait() == 0, driver.told
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == "hex_board_size_3"
    assert driver.summary()["status"]["version"] >= 1
    rows = sound(out)
    assert set(rows["env_id"].to_pylist()) == {"openspiel/hex-v0"}
    assert "board_size=3" in store.open(str(out)).environments()[0]["game_string"]
    agent = Agent.load(str(out))
    assert agent.game.num_actions == 9


@pytest.mark.slow
def test_a_game_of_another_distribution(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(PLUGIN, source)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True, capture_output=True, text=True)
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))
    driver = start("corner/lame_rook", "--out", tmp_path / "run", *quick, *SMALL, "--json", PYTHONPATH=path)
    assert driver.wait() == 0, driver.told
    corpus = store.open(str(tmp_path / "run"))
    assert corpus.count() > 0
    (environment,) = corpus.environments()
    assert (environment["package"], environment["package_version"]) == ("corner-games", "1.2.3")
    answers = {check.reason for check in verify_corpus(corpus)}
    assert answers == {"corner/lame_rook-v0 is not installed; install corner-games 1.2.3"}
