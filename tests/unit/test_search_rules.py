"""Compiled rules say what OpenSpiel's say, of every position that they meet."""

from __future__ import annotations

import functools
import random

import numpy as np
import pyspiel
import pytest

from selfplay.environments.game import Game, RawObservation, load, spec_from_string
from selfplay.search import cache as table
from selfplay.search import rules

GAMES = ("connect_four", "tic_tac_toe", "othello", "breakthrough")
#: How games end, for who makes the last move, in the games below.
MET = {"connect_four": {1, 0}, "tic_tac_toe": {1, 0}, "othello": {1, -1}, "breakthrough": {1}}


@functools.cache
def observation_of(game: Game) -> RawObservation:
    return RawObservation(game.game)


def board_of(game: Game, state: pyspiel.State, seat: int) -> np.ndarray:
    board, raw = np.full(rules.WORDS, 7, np.uint64), observation_of(game)
    raw.set_from(state, seat)
    rules.read(rules.rules_of(game), raw.tensor, seat, board)
    return board


def quiet(state: pyspiel.State) -> list[int]:
    """The moves that do not end the game: with these alone, boards fill up."""
    return [action for action in state.legal_actions() if not state.child(action).is_terminal()]


@pytest.mark.parametrize("name", GAMES)
def test_they_agree_with_openspiel_in_every_position_and_after_every_move(name: str) -> None:
    game = load(spec_from_string(name))
    kind, raw, rng = rules.rules_of(game), observation_of(game), random.Random(0)
    shown, actions = np.zeros_like(raw.tensor), np.zeros(rules.MOST_LEGAL, np.int32)
    after, ends, passes = np.zeros(rules.WORDS, np.uint64), set(), 0
    for number in range(6 if name == "breakthrough" else 20):
        state = game.new_initial_state()
        while not state.is_terminal():
            seat = state.current_player()
            board = board_of(game, state, seat)
            raw.set_from(state, seat)
            rules.show(kind, board, shown)
            np.testing.assert_array_equal(shown, raw.tensor)
            legal = state.legal_actions()
            passes += legal == [64]
            assert actions[: rules.legal_actions(kind, board, actions)].tolist() == legal
            for action in legal:
                child = state.child(action)
                result = rules.play(kind, board, action, after)
                assert child.is_terminal() == (result != rules.GOES_ON)
                if child.is_terminal():
                    assert child.returns()[seat] == result
                    ends.add(result)
                else:
                    np.testing.assert_array_equal(after, board_of(game, child, child.current_player()))
            state.apply_action(rng.choice((quiet(state) if number % 2 else []) or legal))
    assert ends >= MET[name], (ends, passes)
    assert (passes > 0) == (name == "othello")


@pytest.mark.parametrize(
    "name", ["connect_four(rows=5)", "connect_four(egocentric_obs_tensor=True)", "breakthrough(rows=6,columns=6)"]
)
def test_other_parameters_are_other_rules(name: str) -> None:
    assert rules.rules_of(load(spec_from_string(name))) == rules.NONE
    assert rules.rules_of(load(spec_from_string("connect_four"))) == rules.CONNECT_FOUR


@pytest.mark.parametrize("name", GAMES)
def test_no_two_positions_share_a_key(name: str) -> None:
    """All positions of the first moves: equal keys if and only if the position is equal, half by half."""
    game = load(spec_from_string(name))
    kind, salt = rules.rules_of(game), np.frombuffer(bytes.fromhex("5e8f" * 8), np.uint64)
    start = board_of(game, game.new_initial_state(), 0)
    seen, edge = {start.tobytes()}, [start]
    actions = np.zeros(rules.MOST_LEGAL, np.int32)
    while len(seen) < 2000:
        last, edge = edge, []
        for board in last:
            for action in actions[: rules.legal_actions(kind, board, actions)].tolist():
                after = np.zeros(rules.WORDS, np.uint64)
                rules.play(kind, board, action, after)
                if after.tobytes() not in seen:
                    seen.add(after.tobytes())
                    edge.append(after)
    boards = [np.frombuffer(key, np.uint64) for key in seen]
    keys = [table.hash_words(board, one) for one in (salt, ~salt) for board in boards]
    for half in range(2):
        assert len({key[half] for key in keys}) == 2 * len(seen)
        assert len({key[half] & np.uint64(2**32 - 1) for key in keys}) > 2 * len(seen) - 10  # the table uses low bits
