"""Environments are found by id, path, OpenSpiel string and entry point; what is wrong is told in a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyspiel
import pytest

from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.errors import UserError

PLUGIN = Path(__file__).parents[1] / "plugin_dist"
MAIN = "from selfplay.cli.main import main; main()"

Python = Callable[..., subprocess.CompletedProcess[str]]


def test_the_newest_version_answers_to_the_name() -> None:
    assert registry.find("connect_four") is registry.find("connect_four-v0")


def test_all_specs_are_in_order_and_know_their_source() -> None:
    specs = registry.all_specs()
    assert [spec.id for spec in specs] == sorted(spec.id for spec in specs)
    source = registry.source_of(registry.find("hex"))
    assert (source.kind, source.name, source.package) == ("package", "envs.games.hex", "selfplay-factory")
    assert source.text is not None and source.text.startswith('"""Hex on a rhombus')


def test_openspiel_strings() -> None:
    spec = registry.find("openspiel:hex(board_size=5)")
    assert spec.id == "openspiel/hex-v0"
    source = registry.source_of(spec)
    assert (source.kind, source.package, source.text) == ("openspiel", "open_spiel", None)
    assert registry.unpack(registry.pack(spec)) == spec


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("conect_four", "there is no environment 'conect_four'; the nearest is 'connect_four'"),
        ("conect_four-v0", "there is no environment 'conect_four-v0'; the nearest is 'connect_four'"),
        ("connect_four-v9", "there is no environment 'connect_four-v9'; there is connect_four-v0"),
        ("kuhn_poker", "OpenSpiel has that game: write 'openspiel:kuhn_poker'"),
        ("qqq", "there is no environment 'qqq'; known are addition, breakthrough, chess, connect_four"),
        ("./nothing.py", "there is no file nothing.py"),
        ("openspiel:hexx", "OpenSpiel has no game named 'hexx'; the nearest name is 'hex'"),
        ("openspiel:hex(board_size=x)", "OpenSpiel cannot load"),
    ],
)
def test_what_is_not_found(reference: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        registry.find(reference)
    assert sentence in str(error.value)


def test_a_file_is_an_environment(tmp_path: Path, readme_game: str) -> None:
    path = tmp_path / "four_on_five.py"
    path.write_text(readme_game, encoding="utf-8")
    spec = registry.find(str(path))
    assert spec.id == "four_on_five-v0"
    assert registry.find(str(path)) is spec
    assert registry.find("four_on_five") is spec
    portable = registry.pack(spec)
    assert (portable.reference, portable.text) == ("four_on_five.py", readme_game)
    assert registry.unpack(portable) is spec


def test_an_edited_file_plays_by_its_new_rules(tmp_path: Path, readme_game: str) -> None:
    path = tmp_path / "four_on_five.py"
    path.write_text(readme_game, encoding="utf-8")
    before = registry.find(str(path))
    first = ruleset_digest(before)
    path.write_text(readme_game.replace("SIZE, ROW = 5, 4", "SIZE, ROW = 5, 3"), encoding="utf-8")
    after = registry.find(str(path))
    assert ruleset_digest(after) != first
    assert load(after).after([0, 5, 1, 6, 2]).is_terminal()
    assert not load(before).after([0, 5, 1, 6, 2]).is_terminal()
    assert ruleset_digest(before) == first


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def", "my_game.py, line 1 is not Python: invalid syntax"),
        ("x = 1\ny = 1 / 0", "my_game.py, line 2, fails with ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)", "my_game.py, line 2, fails with SystemExit: 0"),
        ("x = " + "(" * 10_000, "my_game.py, line 1 is not Python"),
        ("x = " + "-" * 100_000 + "1", "my_game.py is not Python that can be read: it is nested too deep"),
        ("import nowhere", "an environment file imports installed packages only"),
        ("SPEC = 3", "must define SPEC = GameSpec(…) or TaskSpec(…) of selfplay.contract, and its SPEC is 3"),
        (
            "from selfplay.contract import GameSpec\nSPEC = GameSpec('hex-v0', 'hex', 'Hex', 9)",
            "my_game.py declares the id hex-v0, which belongs to selfplay-factory; give it another name",
        ),
        (
            "from selfplay.contract import GameSpec\nSPEC = GameSpec('Hex', 'hex', 'Hex', 9)",
            "environment id 'Hex' is not of the form name-vN",
        ),
    ],
)
def test_files_that_are_no_environments(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "my_game.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        registry.find(str(path))
    assert sentence in str(error.value)


def test_the_file_of_an_installed_environment_is_that_environment() -> None:
    path = Path(__file__).parents[2] / "envs" / "games" / "hex.py"
    assert registry.find(str(path)) is registry.find("hex")


def test_a_spec_made_by_hand_does_not_travel() -> None:
    from selfplay.contract import GameSpec

    with pytest.raises(UserError, match="was not found by the registry"):
        registry.pack(GameSpec("made-v0", "hex", "Made by hand", 9))


def test_another_distribution_is_found_by_its_entry_point(tmp_path: Path, python: Python) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(PLUGIN, source)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True, capture_output=True, text=True)
    listed = python(MAIN, "envs", "--json", cwd=tmp_path, path=target)
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {row["id"]: row for row in json.loads(listed.stdout)}
    row = rows["corner/lame_rook-v0"]
    assert (row["package"], row["version"]) == ("corner-games", "1.2.3")
    assert "hex-v0" in rows
    checked = python(MAIN, "check-env", "corner/lame_rook", "--json", cwd=tmp_path, path=target)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert json.loads(checked.stdout)["ok"]


def test_what_is_broken_in_a_distribution_is_a_warning_that_names_it(tmp_path: Path, python: Python) -> None:
    package = tmp_path / "broken_games"
    package.mkdir()
    spec = "from selfplay.contract import GameSpec\nSPEC = GameSpec({!r}, 'hex(board_size=3)', 'A game', 9)\n"
    (package / "__init__.py").write_text("")
    (package / "crashes.py").write_text("raise RuntimeError('half installed')")
    (package / "taken.py").write_text(spec.format("hex-v0"))
    (package / "works.py").write_text(spec.format("small-v1"))
    (package / "_hidden.py").write_text(spec.format("hidden-v0"))
    (package / "helper.py").write_text("")
    info = tmp_path / "broken_games-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-games\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[selfplay.envs]\nbroken = broken_games\ngone = no_such_package\n")
    listed = python(MAIN, "envs", "--json", cwd=tmp_path, path=tmp_path)
    assert listed.returncode == 0
    ids = {row["id"] for row in json.loads(listed.stdout)}
    assert "small-v1" in ids and "hidden-v0" not in ids and "hex-v0" in ids
    for part in (
        "environment broken_games.crashes of broken-games is left out: RuntimeError: half installed",
        "environment broken_games.taken of broken-games is left out: its id hex-v0 is taken by envs.games.hex",
        "environment no_such_package of broken-games is left out: ModuleNotFoundError",
    ):
        assert part in listed.stderr, listed.stderr
    assert "helper" not in listed.stderr


def test_registering_a_python_game_again_replaces_it(readme_game: str) -> None:
    """What `registry` and `register` rely on."""
    spec = registry.load_source(readme_game, "four_on_five.py")
    for _ in range(2):
        spec.register()
    assert pyspiel.load_game("four_on_five").new_initial_state().legal_actions() == list(range(25))
