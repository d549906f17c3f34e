"""Every environment that ships keeps the contract, and says so in its docstring."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import pytest

import envs.games
from selfplay.environments import registry
from selfplay.environments.checks.game_check import check
from selfplay.environments.game import load

FILES = sorted(path.stem for path in Path(envs.games.__path__[0]).glob("*.py") if not path.stem.startswith("_"))
HEADINGS = ("Description:", "Actions:", "Observation:", "Returns:", "Episode end:", "Source:", "Version history:")
#: Symmetries without the identity.
SYMMETRIES = {
    "tic_tac_toe": 7,
    "connect_four": 1,
    "othello": 3,
    "breakthrough": 1,
    "hex": 1,
    "go": 7,
    "chess": 0,
}


@pytest.mark.parametrize("name", FILES)
def test_passes_the_check(name: str) -> None:
    began = time.process_time()
    report = check(registry.find(name))
    assert [(finding.name, finding.problem) for finding in report.findings if finding.problem] == []
    assert report.unsearchable is None
    assert time.process_time() - began < 10


@pytest.mark.parametrize("name", FILES)
def test_is_found_and_described(name: str) -> None:
    spec = registry.find(name)
    assert spec.name == name
    assert len(spec.symmetries) == SYMMETRIES[name]
    assert spec.draw is not None
    docstring = importlib.import_module(f"envs.games.{name}").__doc__ or ""
    assert [heading for heading in HEADINGS if f"\n{heading}\n" not in docstring] == []
    assert f"v{spec.version}:" in docstring.split("Version history:")[1]


@pytest.mark.parametrize(
    ("name", "own", "other", "actions"),
    [
        ("tic_tac_toe", 1, 2, [0, 1, 2, 4, 3]),
        ("connect_four", 0, 1, [0, 0, 1, 3, 6]),
        ("go", 0, 1, [0, 40, 80, 7, 72]),
    ],
)
def test_a_seat_sees_its_own_stones_in_one_plane(name: str, own: int, other: int, actions: list[int]) -> None:
    game = load(registry.find(name))
    state = game.new_initial_state()
    stones = [0, 0]
    for action in actions:
        seat = state.current_player()
        view = game.encoder.encode(state)
        assert [view[own].sum(), view[other].sum()] == [stones[seat], stones[1 - seat]]
        if name == "go":
            assert (view[3] == seat).all(), "the plane of the colour to act"
        state.apply_action(action)
        stones[seat] += 1


def test_a_seat_of_othello_sees_its_own_discs_in_one_plane() -> None:
    game = load(registry.find("othello"))
    for actions, own, other in (([], 2, 2), ([19], 1, 4)):
        view = game.encoder.encode(game.after(actions))
        assert [view[1].sum(), view[2].sum()] == [own, other]


@pytest.mark.parametrize(
    ("name", "actions", "written"),
    [
        ("tic_tac_toe", [0, 8], ["a3", "c1"]),
        ("connect_four", [0, 6], ["1", "7"]),
        ("othello", [19], ["d3"]),
        ("breakthrough", [100], ["a7b6"]),
        ("hex", [12], ["b2"]),
        ("go", [0, 81], ["A1", "pass"]),
    ],
)
def test_actions_are_written_as_documented(name: str, actions: list[int], written: list[str]) -> None:
    game = load(registry.find(name))
    state = game.new_initial_state()
    assert [game.action_text(state, action) for action in actions] == written


def test_go_is_cut_before_openspiel_scores_it() -> None:
    game = load(registry.find("go"))
    assert game.spec.ply_limit < game.game.max_game_length()


def test_a_policy_layout_is_the_one_that_the_board_has() -> None:
    """Where `policy_planes` is given, action // planes is the square that the action names, in the net's rows."""
    breakthrough = load(registry.find("breakthrough"))
    state = breakthrough.new_initial_state()
    planes = breakthrough.spec.policy_planes
    assert planes == 12
    for action in state.legal_actions():
        row, column = divmod(action // planes, 8)
        assert breakthrough.encoder.encode(state)[0, row, column] == 1, "the piece that moves stands there"
    for name, probe in (("hex", 17), ("go", 17), ("othello", 19)):
        game = load(registry.find(name))
        assert game.spec.policy_planes == 1
        before = game.new_initial_state()
        height, width = game.encoder.shape[-2:]
        row, column = divmod(probe, width)
        empty = {"hex": 4, "go": 2, "othello": 0}[name]
        assert game.encoder.encode(before)[empty, row, column] == 1
        after = game.after([probe])
        assert game.encoder.encode(after)[empty, row, column] == 0
        assert game.num_actions - height * width in (0, 1)
