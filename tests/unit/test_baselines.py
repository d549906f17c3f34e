"""What simple players do on the test positions: kept results are what the players do, and are shown beside a net's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyspiel
import pytest
from rich.console import Console

from selfplay.actors.examiner import Exam, Marks
from selfplay.cli import screen
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.evaluation import exact as arena
from selfplay.evaluation.baselines import (
    RANDOM,
    ROLLOUTS,
    SEED,
    TWO_PLY,
    Baseline,
    Compared,
    _stored,
    compared,
    errs,
    expected_errors,
    two_ply_player,
)
from selfplay.evaluation.exact import Positions
from selfplay.evaluation.match import wilson
from selfplay.evaluation.players import mcts_player
from trainers.alphazero.config import EvaluationConfig
from trainers.alphazero.scoreboard import Scoreboard
from trainers.alphazero.state import State

NAMES = [RANDOM, TWO_PLY, "MCTS-100", "MCTS-1000"]


@pytest.mark.parametrize("name", ["connect_four", "tic_tac_toe"])
def test_kept_results_are_what_the_players_do(name: str) -> None:
    """The first positions of each set again; `python -m selfplay.evaluation.build_data baselines` makes all of them."""
    game = load(registry.find(name))
    for number, one in enumerate(arena.test_sets(game)):
        kept = _stored(game.spec.id)[one.label]
        assert list(kept) == NAMES[1:] and {len(wrong) for wrong in kept.values()} == {len(one)}
        few, some = one.head(6), one.head(60)
        assert np.array_equal(kept[TWO_PLY][:60], errs(game, two_ply_player(), some))
        for rollouts, head in zip(ROLLOUTS, (some, few), strict=True):
            again = errs(game, mcts_player(game, rollouts, SEED + number), head)
            assert np.array_equal(kept[f"MCTS-{rollouts}"][: len(head)], again)
        for kind in compared(game, one):
            shares = {found.player: found.wrong / found.positions for found in kind.baselines}
            assert list(shares) == NAMES and shares[RANDOM] > shares[TWO_PLY] > shares["MCTS-1000"]


def test_the_rule_wins_blocks_and_plays_the_middle() -> None:
    state = pyspiel.load_game("connect_four").new_initial_state()
    play = two_ply_player()
    assert play([state]) == [3]
    for action in (0, 6, 0, 6, 0):
        state.apply_action(action)
    assert play([state]) == [0], "the other would win there"
    state.apply_action(6)
    assert play([state]) == [0], "a win"


def test_random_moves_are_counted_by_their_expectation() -> None:
    game = load(registry.find("tic_tac_toe"))
    values = np.full((3, 9), np.nan, np.float32)
    values[0, :3], values[1, :3], values[2, :2] = (1, 1, -1), (0, 0, 0), (1, -1)
    one = Positions("not a stored set", ((), (), ()), values)
    (found,) = compared(game, one)
    assert (found.positions, found.misplayable) == (3, 2)
    assert [other.player for other in found.baselines] == [RANDOM, TWO_PLY], "a search would take too long meanwhile"
    assert found.baselines[0].wrong == pytest.approx(1 / 3 + 1 / 2)


def test_whoever_sees_a_win_at_once_errs_in_quiet_positions_only() -> None:
    game = load(registry.find("connect_four"))
    for one in arena.test_sets(game):
        every, quiet = compared(game, one)
        assert (quiet.label, every.label) == (f"quiet, {every.label}", one.label) and quiet.positions < every.positions
        for name, errors in expected_errors(game, one).items():
            assert one.quiet is not None and (name == RANDOM) == bool(errors[~one.quiet].any())
        assert [b.wrong for b in quiet.baselines[1:]] == [b.wrong for b in every.baselines[1:]]


def test_sets_of_several_sizes_count_the_same() -> None:
    rows = [
        {"version": 1, "label": f"quiet, {plies} plies, raw policy", "mistakes": share, "positions": count}
        for plies, share, count in ((12, 0.1, 300), (24, 0.02, 100))
    ]
    (found,) = Scoreboard(EvaluationConfig(), State(exact=rows), True, 2).mistakes()
    assert (found.mistakes, found.positions) == (pytest.approx(0.06), 400)
    assert (found.low, found.high) == pytest.approx(wilson(0.06 * 300, 300)), "4 / (1/300 + 1/100) of one size"
    equal = [row | {"positions": 100} for row in rows]
    (found,) = Scoreboard(EvaluationConfig(), State(exact=equal), True, 2).mistakes()
    assert (found.low, found.high) == pytest.approx(wilson(12, 200))


def test_a_net_is_shown_beside_them_with_intervals_on_either_kind_of_positions() -> None:
    state = State()
    board = Scoreboard(EvaluationConfig(), state, True, 2)
    sets = tuple(
        Compared(label, 100, unsafe, (Baseline(RANDOM, at_random, 100), Baseline("MCTS-100", wrong, 100)))
        for label, unsafe, at_random, wrong in (
            ("12 plies", 60, 40.5, 7.0), ("16 plies", 50, 40.5, 3.0),
            ("quiet, 12 plies", 50, 30.0, 12.0), ("quiet, 16 plies", 40, 20.0, 8.0),
        )
    )  # fmt: skip
    rows = tuple(
        (f"{one.label}, {how}", share, 100)
        for how in ("64 simulations", "raw policy")
        for one, share in zip(sets, (0.04, 0.02, 0.08, 0.05), strict=True)
    )
    marks = Marks(Exam(3, "exact", 0, 100, 64), mistakes=rows, sets=sets)
    board.record(marks, 0.0, 0.0)
    assert [(row.label, row.low, row.high) for row in board.exact()] == [
        (label, *wilson(100 * share, 100)) for label, share, _ in rows
    ]
    searched, quiet, *raw = board.mistakes()
    assert (searched.kind, searched.player, searched.positions) == ("random positions", "64 simulations", 200)
    assert (searched.mistakes, searched.low, searched.high) == (0.03, *wilson(6, 200))
    assert (quiet.kind, quiet.mistakes) == ("quiet positions", 0.065) and quiet.safe == 0.55
    assert quiet.by_set == (("12 plies", 0.08), ("16 plies", 0.05))
    assert [(row.kind, row.player, row.version) for row in raw] == [
        ("random positions", "raw policy", 3), ("quiet positions", "raw policy", 3)
    ]  # fmt: skip
    random, search, quiet_random, quiet_search = board.baselines()
    assert (random.mistakes, random.positions, random.low, random.high) == (0.405, 200, 0.405, 0.405)
    assert (search.mistakes, search.low, search.high) == (0.05, *wilson(10, 200)) and searched.safe == 0.45
    assert (quiet_random.kind, quiet_random.mistakes, quiet_search.mistakes) == ("quiet positions", 0.25, 0.1)
    console = Console(width=150, record=True)
    console.print(screen.strength((), board.mistakes(), board.baselines()))
    text = console.export_text()
    assert "quiet, 64 simulations" in text and "3.0% 1.4–6.4" in text and "6.5% 4–11" in text
    drawn = "random positions (200 reached by random moves; 45% cannot be misplayed)"
    assert f"{drawn}: random moves 40%, MCTS-100 5.0% (2.7–9.0)" in text
    drawn = "quiet positions (200 of them, where no move ends the game; 55% cannot be misplayed)"
    assert f"{drawn}: random moves 25%, MCTS-100 10% (7–15)" in text
    board.record(replace(marks, exam=replace(marks.exam, version=4)), 0.0, 0.0)
    assert [("baselines" in row) for row in state.exact] == [row["version"] == 4 for row in state.exact]
    assert board.baselines() == (random, search, quiet_random, quiet_search)
    assert board.mistakes(first=True)[0] == searched, "what does not change with the version is kept once"


def test_rows_of_earlier_sessions_are_read() -> None:
    """Written before there were quiet positions, or before anything was compared with simple players."""
    label, players = "12 plies, 64 simulations", {RANDOM: 40.5, "MCTS-100": 7.0}
    row = {"version": 2, "label": label, "mistakes": 0.04, "positions": 100}
    oldest = Scoreboard(EvaluationConfig(), State(exact=[row]), True, 2)
    (found,) = oldest.mistakes()
    assert (found.kind, found.mistakes, found.safe) == ("random positions", 0.04, None)
    assert oldest.baselines() == () and screen.compared(oldest.mistakes(), ()) == []
    old = [row | {"asked": 100, "misplayable": 60, "baselines": players}]
    state = State(exact=[*old, {**old[0], "label": "12 plies, raw policy"}])
    before = Scoreboard(EvaluationConfig(), state, True, 2)
    assert [(one.kind, one.player, one.safe) for one in before.mistakes()] == [
        ("random positions", "64 simulations", 0.4), ("random positions", "raw policy", 0.4)
    ]  # fmt: skip
    assert [(one.kind, one.player, one.positions) for one in before.baselines()] == [
        ("random positions", RANDOM, 100), ("random positions", "MCTS-100", 100)
    ]  # fmt: skip
