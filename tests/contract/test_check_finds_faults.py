"""Faults that authors make are found, each by the check that is about it, with the place of the first difference."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from selfplay.contract import GameSpec, Symmetry
from selfplay.environments import registry
from selfplay.environments.checks import aliases
from selfplay.environments.checks.game_check import Report, check
from selfplay.environments.checks.rules import returns
from selfplay.environments.checks.subject import prepare

SQUARES = np.arange(9).reshape(3, 3)
MIRROR = tuple(SQUARES[:, ::-1].reshape(-1).tolist())
TRANSPOSE = tuple(SQUARES.T.reshape(-1).tolist())


def problems(report: Report) -> dict[str, str]:
    return {finding.name: finding.problem for finding in report.findings if finding.problem is not None}


def tic_tac_toe(**changes: object) -> GameSpec:
    return dataclasses.replace(registry.find("tic_tac_toe"), **changes)


def symmetry(actions: tuple[int, ...], observation: object) -> dict[str, object]:
    return {"symmetries": (Symmetry("odd", actions, observation),)}


@pytest.mark.parametrize(
    ("changes", "name", "problem"),
    [
        (symmetry(MIRROR, lambda x: np.swapaxes(x, -1, -2)), "symmetries", r"odd: game 0, ply \d: mapped obs"),
        (symmetry(TRANSPOSE, lambda x: x[..., ::-1]), "symmetries", r"odd: game 0, ply \d: mapped observation"),
        (symmetry((0,) * 9, lambda x: x), "symmetries", "odd: actions must hold each of 0 to 8 once"),
        (symmetry(MIRROR, lambda x: 1 - x), "symmetries", "odd: observation must move the entries"),
        (symmetry(MIRROR, lambda x: x[:, :, ::-1]), "symmetries", "odd: observation must work on arrays with any"),
        (symmetry(tuple(range(9)), lambda x: x), "symmetries", "odd maps the actions like the identity"),
        (symmetry((1, 0, *range(2, 9)), lambda x: x), "symmetries", r"odd: game \d+, ply \d"),
        ({"seat_planes": ((0, 2, 1), (0, 2, 1))}, "seat planes", "seat_planes shows both seats the same planes"),
        (
            {"seat_planes": ((0, 1, 2), (1, 0, 2))},
            "seat planes",
            "none of the planes that change places fills when seat 0",
        ),
        ({"seat_planes": ((0, 1, 2), (1, 2, 0))}, "seat planes", "own pieces must be at the same place for both"),
        ({"seat_planes": ((0, 1), (1, 0))}, "loads and plays", "permutation of 3 planes"),
        ({"ply_limit": 3}, "game lengths", "ply_limit is 3, but the shortest of 12 random games took"),
        ({"text": lambda state: "a board"}, "texts", "game 0: the text after ply 1 is the same as before it: a board"),
        ({"text": lambda state: ""}, "texts", "game 0, ply 0: the text is ''"),
        ({"draw": lambda state: "[bold"}, "drawings", "game 0: the drawing after ply 1 is the same"),
        ({"draw": lambda state: f"[/red]{state}"}, "drawings", "not valid rich markup"),
        ({"draw": lambda state: f"{state}{'.' * 200}"}, "drawings", "columns wide; at most 120"),
        ({"action_text": lambda state, action: "x"}, "action texts", "actions 0 and 1 are both written 'x'"),
        ({"action_text": lambda state, action: [][action]}, "action texts", "raises IndexError: list index out of"),
        ({"summary": ""}, "declaration", "summary must be one line of text"),
        ({"licence": " "}, "declaration", "licence is empty"),
        ({"game": "tic_tac_to"}, "loads and plays", "the nearest name is 'tic_tac_toe'"),
    ],
)
def test_declarations(changes: dict[str, object], name: str, problem: str) -> None:
    found = problems(check(tic_tac_toe(**changes)))
    assert list(found) == [name]
    assert re.search(problem, found[name]), found[name]


def test_seat_planes_over_an_observation_that_heeds_the_seat() -> None:
    spec = dataclasses.replace(registry.find("othello"), seat_planes=((0, 1, 2), (0, 2, 1)))
    assert "leave seat_planes out" in problems(check(spec))["seat planes"]


def test_seat_planes_of_connect_four_are_swapped() -> None:
    right = registry.find("connect_four")
    wrong = dataclasses.replace(right, seat_planes=((0, 1, 2), (0, 1, 2)))
    assert problems(check(right)) == {}
    assert "must swap those that belong to seats" in problems(check(wrong))["seat planes"]


#: Faults in the rules of the game of envs/README.md: (text, what it becomes, check, what the check says).
RULES = [
    (
        "return [int(square) for square in np.flatnonzero(self.board == -1)]",
        "return [int(square) for square in np.flatnonzero(self.board == -1)][::-1]",
        "legal actions",
        "legal_actions must ascend without repetition",
    ),
    (
        "return [int(square) for square in np.flatnonzero(self.board == -1)]",
        "return [int(square) + 1 for square in np.flatnonzero(self.board == -1)]",
        "loads and plays",
        "raises",
    ),
    (
        "else [1.0 if seat == self.winner else -1.0 for seat in (0, 1)]",
        "else [1.0 if seat == self.winner else 0.0 for seat in (0, 1)]",
        "returns",
        "declared zero-sum",
    ),
    (
        "else [1.0 if seat == self.winner else -1.0 for seat in (0, 1)]",
        "else [2.0 if seat == self.winner else -2.0 for seat in (0, 1)]",
        "returns",
        "leave the range -1 to 1",
    ),
    (
        "else [1.0 if seat == self.winner else -1.0 for seat in (0, 1)]",
        "else [1.0 if (seat == self.winner) == (self.history()[0] < 12) else -1.0 for seat in (0, 1)]",
        "observations tell positions apart",
        "the net is shown the same, but when both go on with",
    ),
    (
        "else [1.0 if seat == self.winner else -1.0 for seat in (0, 1)]",
        "else [float('nan')] * 2",
        "returns",
        "must be one finite number per seat",
    ),
    (
        "        self.board = np.full((SIZE, SIZE), -1)",
        "        self.board = BOARD",
        "loads and plays",
        "after a game was played, a new game begins with",
    ),
    (
        "        self.seat = 1 - self.seat",
        "        self.seat = int(np.random.default_rng().integers(2))",
        "replays repeat",
        "differs when the moves are played a second time",
    ),
    (
        '        self.dict["observation"][0] = state.board == player',
        '        self.dict["observation"][0] += state.board == player',
        "observations",
        "observed twice, entry",
    ),
    (
        '        self.dict["observation"][0] = state.board == player',
        '        self.dict["observation"][0] = np.nan',
        "observations",
        "is not finite",
    ),
    ("    max_game_length=SIZE * SIZE,", "    max_game_length=5,", "game lengths", "but max_game_length is 5"),
    ("def __str__(self):", "def __str__(self):\n        return 'board'", "texts", "str(state) stays the same in"),
    ("    ply_limit=SIZE * SIZE,", "    ply_limit=2,", "game lengths", "ply_limit is 2, but the shortest"),
    (
        'Symmetry("mirror", actions=tuple(SQUARES[:, ::-1].flat)',
        'Symmetry("mirror", actions=tuple(SQUARES[::-1].flat)',
        "symmetries",
        "mirror: game 0, ply 1: mapped observation and observation of the image: entry",
    ),
    (
        "return f\"{'abcde'[action % SIZE]}{SIZE - action // SIZE}\"",
        "return 'abc'[action]",
        "replays repeat",
        "raises IndexError: string index out of range",
    ),
]


@pytest.mark.parametrize(("text", "fault", "name", "problem"), RULES)
def test_rules(
    readme_game: str, text: str, fault: str, name: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "observations tell positions apart":
        monkeypatch.setattr(aliases, "_SECONDS", 60.0)  # it is found by then on the slowest machine
    source = readme_game
    assert source.count(text) == 1, text
    source = source.replace(text, fault).replace("class State(", "BOARD = np.full((SIZE, SIZE), -1)\n\n\nclass State(")
    found = problems(check(registry.load_source(source, "four_on_five.py")))
    assert name in found and problem in found[name], found


def test_results_between_loss_and_win_are_worth_a_remark(readme_game: str) -> None:
    whole, part = "[1.0 if seat == self.winner else -1.0 for", "[0.4 if seat == self.winner else -0.4 for"
    assert readme_game.count(whole) == 1
    for source, noted in ((readme_game, False), (readme_game.replace(whole, part), True)):
        subject = prepare(registry.load_source(source, "four_on_five.py"))
        problem, note = returns(subject)
        assert problem is None and (note is not None and "between win, draw and loss" in note) == noted


def test_what_an_author_raises_is_told_with_its_line(readme_game: str) -> None:
    source = readme_game.replace("def register():", "def register():\n    raise OSError('no rules today')")
    found = problems(check(registry.load_source(source, "four_on_five.py")))
    line = source[: source.index("raise OSError")].count("\n") + 1
    assert found == {
        "loads and plays": f"raises OSError: no rules today (four_on_five.py, line {line}, in register)",
    }


def test_games_that_cannot_be_replayed_are_refused_by_name() -> None:
    report = check(registry.find("openspiel:mfg_crowd_modelling"))
    assert "openspiel/mfg_crowd_modelling-v0 cannot be recorded: it is a mean-field game" in problems(report).values()
    report = check(registry.find("openspiel:phantom_ttt"))
    assert problems(report) == {}
    assert report.unsearchable == "its players have hidden information"


@pytest.mark.parametrize("game", ["backgammon", "kuhn_poker", "goofspiel", "leduc_poker", "y(board_size=4)"])
def test_games_of_openspiel_pass(game: str) -> None:
    assert problems(check(registry.find(f"openspiel:{game}"))) == {}
