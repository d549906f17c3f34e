"""What simple players do on the test positions: kept results are what the players do, and are shown beside a net's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyspiel
import pytest
from rich.console import Console

from selfplay import registry
from selfplay.actors.examiner import Exam, Marks
from selfplay.arena import exact as arena
from selfplay.arena.baselines import (
    RANDOM,
    ROLLOUTS,
    SEED,
    TWO_PLY,
    Baseline,
    Compared,
    _stored,
    baselines,
    compared,
    errs,
    two_ply_player,
)
from selfplay.arena.exact import Positions
from selfplay.arena.match import wilson
from selfplay.arena.players import mcts_player
from selfplay.cli import screen
from selfplay.game import load
from trainers.config import EvaluationConfig
from trainers.run_state import State
from trainers.scoreboard import Scoreboard

NAMES = [RANDOM, TWO_PLY, "MCTS-100", "MCTS-1000"]


@pytest.mark.parametrize("name", ["connect_four", "tic_tac_toe"])
def test_kept_results_are_what_the_players_do(name: str) -> None:
    """The first positions of each set again; `python -m selfplay.arena.build_data baselines` makes all of them."""
    game = load(registry.find(name))
    for number, one in enumerate(arena.test_sets(game)):
        kept = _stored(game.spec.id)[one.label]
        assert list(kept) == NAMES[1:] and {len(wrong) for wrong in kept.values()} == {len(one)}
        few, some = one.head(6), one.head(60)
        assert np.array_equal(kept[TWO_PLY][:60], errs(game, two_ply_player(), some))
        for rollouts, head in zip(ROLLOUTS, (some, few), strict=True):
            again = errs(game, mcts_player(game, rollouts, SEED + number), head)
            assert np.array_equal(kept[f"MCTS-{rollouts}"][: len(head)], again)
        shares = {found.player: found.wrong / found.positions for found in baselines(game, one)}
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
    found = compared(game, one)
    assert (found.positions, found.misplayable) == (3, 2)
    assert [other.player for other in found.baselines] == [RANDOM, TWO_PLY], "a search would take too long meanwhile"
    assert found.baselines[0].wrong == pytest.approx(1 / 3 + 1 / 2)


def test_a_net_is_shown_beside_them_with_intervals() -> None:
    state = State()
    board = Scoreboard(EvaluationConfig(), state, True, 2)
    sets = tuple(
        Compared(label, 100, safe, (Baseline(RANDOM, 40.5, 100), Baseline("MCTS-100", wrong, 100)))
        for label, safe, wrong in (("12 plies", 60, 7.0), ("16 plies", 50, 3.0))
    )
    rows = tuple((f"{one.label}, {how}", 0.04, 100) for how in ("64 simulations", "raw policy") for one in sets)
    board.record(Marks(Exam(3, "exact", 0, 100, 64), mistakes=rows, sets=sets), 0.0, 0.0)
    assert [(row.low, row.high) for row in board.exact()] == [wilson(4, 100)] * 4
    random, search = board.baselines()
    assert (random.mistakes, random.positions, random.low, random.high) == (0.405, 200, 0.405, 0.405)
    assert (search.mistakes, search.low, search.high) == (0.05, *wilson(10, 200)) and board.safe() == 0.45
    console = Console(width=120, record=True)
    console.print(screen.strength((), board.exact(), board.baselines(), board.safe()))
    text = console.export_text()
    assert "4.0% 1.6–9.8" in text and "same positions: random moves 40%, MCTS-100 5.0% (2.7–9.0)" in text
    assert "200 positions reached by random moves; 45% cannot be misplayed" in text
    state.exact = [{key: row[key] for key in ("version", "label", "mistakes", "positions")} for row in state.exact]
    older = Scoreboard(EvaluationConfig(), replace(state), True, 2)
    assert older.baselines() == () and older.safe() is None and len(older.exact()) == 4
