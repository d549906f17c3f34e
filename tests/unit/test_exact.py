"""Exact solvers against plain minimax over OpenSpiel's own rules, and against known facts."""

from __future__ import annotations

import random

import pyspiel
import pytest

from envs.games import _tic_tac_toe_exact as tic_tac_toe

connect_four = pytest.importorskip("envs.games._connect_four_exact", reason="needs numba (the factory extra)")


def minimax(state: pyspiel.State, seat: int, known: dict[str, float]) -> float:
    """The value of `state` for `seat`, by the definition."""
    board = str(state)
    if board not in known:
        if state.is_terminal():
            known[board] = state.returns()[0]
        else:
            sign = 1.0 if state.current_player() == 0 else -1.0
            known[board] = sign * max(sign * minimax(state.child(a), 0, known) for a in state.legal_actions())
    return known[board] if seat == 0 else -known[board]


def minimax_moves(state: pyspiel.State, known: dict[str, float]) -> dict[int, float]:
    """Legal action -> value for the seat to act."""
    return {a: minimax(state.child(a), state.current_player(), known) for a in state.legal_actions()}


def random_state(game: pyspiel.Game, plies: int, rng: random.Random) -> pyspiel.State:
    """A non-terminal state after `plies` random moves."""
    while True:
        state = game.new_initial_state()
        while not state.is_terminal() and state.move_number() < plies:
            state.apply_action(rng.choice(state.legal_actions()))
        if not state.is_terminal():
            return state


def test_tic_tac_toe_is_a_draw_and_every_state_equals_minimax() -> None:
    solve = tic_tac_toe.exact()
    known: dict[str, float] = {}
    start = pyspiel.load_game("tic_tac_toe").new_initial_state()
    assert solve(start) == dict.fromkeys(range(9), 0.0)
    todo, seen = [start], set()
    while todo:
        state = todo.pop()
        if str(state) in seen:
            continue
        seen.add(str(state))
        if state.is_terminal():
            assert solve(state) == {}
            continue
        assert solve(state) == minimax_moves(state, known)
        todo += [state.child(action) for action in state.legal_actions()]
    assert len(seen) == 5478


def test_tic_tac_toe_needs_no_order_of_calls() -> None:
    state = pyspiel.load_game("tic_tac_toe").new_initial_state()
    for action in (0, 1, 4):
        state.apply_action(action)
    assert max(tic_tac_toe.exact()(state).values()) == -1.0


@pytest.mark.parametrize("plies", [30, 31, 33, 35, 37, 39, 41])
def test_connect_four_equals_minimax(plies: int) -> None:
    game, rng, solve = pyspiel.load_game("connect_four"), random.Random(plies), connect_four.exact()
    known: dict[str, float] = {}
    for _ in range(12 if plies == 30 else 40):
        state = random_state(game, plies, rng)
        assert solve(state) == minimax_moves(state, known), str(state)


def test_connect_four_equals_minimax_on_shallow_boards_with_a_small_table() -> None:
    """A table of 16 entries is overwritten all the time: bounds must stay right whatever is lost."""
    game, rng = pyspiel.load_game("connect_four"), random.Random(5)
    small, large = connect_four.exact(table_bits=4), connect_four.exact()
    for _ in range(30):
        state = random_state(game, rng.choice((20, 22, 25)), rng)
        assert small(state) == large(state)


def test_connect_four_values_agree_with_the_values_of_the_states_they_lead_to() -> None:
    game, rng, solve = pyspiel.load_game("connect_four"), random.Random(6), connect_four.exact()
    for _ in range(20):
        state = random_state(game, 14, rng)
        for action, value in solve(state).items():
            child = state.child(action)
            if child.is_terminal():
                assert value == child.returns()[state.current_player()]
            else:
                assert value == -max(solve(child).values())


def test_connect_four_mirror_has_mirrored_values() -> None:
    game, rng, solve = pyspiel.load_game("connect_four"), random.Random(7), connect_four.exact()
    for _ in range(20):
        state, image = random_state(game, 16, rng), game.new_initial_state()
        for action in state.history():
            image.apply_action(6 - action)
        assert solve(image) == {6 - action: value for action, value in solve(state).items()}


def test_connect_four_wins_and_blocks_at_once() -> None:
    state = pyspiel.load_game("connect_four").new_initial_state()
    for action in (3, 0, 3, 0, 3, 1, 6, 1):
        state.apply_action(action)
    assert connect_four.exact()(state)[3] == 1.0
    state.apply_action(6)
    values = connect_four.exact()(state)
    assert values[3] > -1.0 or max(values.values()) == -1.0
    assert all(value == -1.0 for action, value in values.items() if action != 3)


def test_connect_four_refuses_what_takes_too_long_and_other_boards() -> None:
    state = pyspiel.load_game("connect_four").new_initial_state()
    with pytest.raises(ValueError, match="at least 8 stones on the board, got 0"):
        connect_four.exact()(state)
    other = pyspiel.load_game("connect_four(rows=7,columns=7)").new_initial_state()
    with pytest.raises(ValueError, match="6 rows and 7 columns"):
        connect_four.exact()(other)


def test_connect_four_terminal_state_has_no_moves() -> None:
    state = pyspiel.load_game("connect_four").new_initial_state()
    for action in (3, 0, 3, 0, 3, 0, 3):
        state.apply_action(action)
    assert state.is_terminal() and connect_four.exact()(state) == {}
