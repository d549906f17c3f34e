"""Test positions, stored and made anew, and the counting of mistakes."""

from __future__ import annotations

import random

import numpy as np
import pyspiel
import pytest

from envs.games._tic_tac_toe_exact import exact as tic_tac_toe_exact
from selfplay.contract import GameSpec, Symmetry
from selfplay.environments.game import Game, load, spec_from_string
from selfplay.evaluation import exact as arena
from selfplay.evaluation.baselines import errs
from selfplay.evaluation.exact import Positions, mean_share, mistakes, solve_positions
from selfplay.evaluation.openings import (
    BALANCED_COUNT,
    BALANCED_PLIES,
    BALANCED_SEED,
    all_openings,
    from_json,
    openings,
    random_openings,
    to_json,
)
from selfplay.evaluation.players import exact_player, mcts_player, random_player
from selfplay.evaluation.positions import all_lines, is_quiet, key, random_lines

solver_module = pytest.importorskip("envs.games._connect_four_exact", reason="needs numba (the factory extra)")


@pytest.fixture(scope="module")
def connect_four() -> Game:
    mirror = Symmetry("mirror", tuple(range(6, -1, -1)), lambda planes: planes[..., ::-1])
    return load(GameSpec("connect_four-v0", "connect_four", "", 42, (mirror,), exact=solver_module.exact))


@pytest.fixture(scope="module")
def tic_tac_toe() -> Game:
    return load(GameSpec("tic_tac_toe-v0", "tic_tac_toe", "", 9, exact=tic_tac_toe_exact))


@pytest.fixture(scope="module")
def stored(connect_four: Game) -> tuple[Positions, ...]:
    return arena.test_sets(connect_four)


def test_stored_positions_are_distinct_legal_and_of_their_plies(
    connect_four: Game, stored: tuple[Positions, ...]
) -> None:
    assert [one.label for one in stored] == [f"{plies} plies" for plies in arena.TEST_PLIES]
    for one, plies in zip(stored, arena.TEST_PLIES, strict=True):
        states = one.states(connect_four)
        assert len(one) == arena.TEST_COUNT == len({key(state) for state in states})
        assert {state.move_number() for state in states} == {plies}
        for state, values in zip(states, one.values, strict=True):
            assert not state.is_terminal()
            assert np.flatnonzero(~np.isnan(values)).tolist() == state.legal_actions()
        assert 300 < one.misplayable() < 900


def wins_at_once(board: str, stone: str) -> bool:
    """Whether a stone dropped into some column completes four in a row, by looking at every line of the drawing."""
    rows = board.split()[::-1]
    for column in range(7):
        height = sum(row[column] != "." for row in rows)
        if height == 6:
            continue
        at = {(x, y) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == stone} | {(column, height)}
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            if any({(x + i * dx, y + i * dy) for i in range(4)} <= at for x, y in at):
                return True
    return False


def test_quiet_positions_are_those_in_which_no_move_ends_the_game(
    connect_four: Game, stored: tuple[Positions, ...]
) -> None:
    for one, plies in zip(stored, arena.TEST_PLIES, strict=True):
        assert one.quiet is not None and 400 < one.quiet.sum() < 700
        assert list(one.kinds()) == [f"{plies} plies", f"quiet, {plies} plies"]
        states = one.states(connect_four)[::10]
        ends = [wins_at_once(str(state), "xo"[state.current_player()]) for state in states]
        assert [not quiet for quiet in one.quiet[::10]] == ends == [not is_quiet(state) for state in states]
        assert one[100:200:10].quiet.tolist() == [not end for end in ends[10:20]]  # type: ignore[union-attr]


def test_a_threat_of_the_other_side_is_quiet_and_a_last_move_is_not(tic_tac_toe: Game, connect_four: Game) -> None:
    assert is_quiet(connect_four.after((3, 0, 3, 0, 3))), "the other side would win: that must be seen, and is a test"
    assert not is_quiet(connect_four.after((3, 0, 3, 0, 3, 0)))
    assert not is_quiet(connect_four.after((3, 0, 3, 0, 3, 0, 3))), "it has ended"
    assert not is_quiet(tic_tac_toe.after((0, 1, 2, 4, 3, 5, 7, 6))), "one cell is left: the draw is an end, too"


def plain_value(own: frozenset[tuple[int, int]], other: frozenset[tuple[int, int]], known: dict[object, int]) -> int:
    """The value of a connect-four board for the side to move, by the definition: every move, and what it leads to."""
    if (own, other) not in known:
        heights = [sum(x == column for x, _ in own | other) for column in range(7)]
        moves = [(column, height) for column, height in enumerate(heights) if height < 6]
        best = -1 if moves else 0
        for x, y in moves:
            after = own | {(x, y)}
            won = any(
                all((x + (i - start) * dx, y + (i - start) * dy) in after for i in range(4))
                for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1))
                for start in range(4)
            )
            best = max(best, 1 if won else -plain_value(other, after, known))
            if best == 1:
                break
        known[own, other] = best
    return known[own, other]


def test_stored_values_are_those_of_a_plain_search(connect_four: Game, stored: tuple[Positions, ...]) -> None:
    """Without any cleverness of the solver, in positions with few columns left, where that takes no minutes."""
    one = stored[-1]
    assert one.quiet is not None
    for row in (207, 503, 615):
        assert one.quiet[row]
        stones: tuple[set[tuple[int, int]], set[tuple[int, int]]] = (set(), set())
        for ply, column in enumerate(one.lines[row]):
            height = sum(x == column for x, _ in stones[0] | stones[1])
            stones[ply % 2].add((column, height))
        known: dict[object, int] = {}
        heights = [sum(x == column for x, _ in stones[0] | stones[1]) for column in range(7)]
        for column in np.flatnonzero(~np.isnan(one.values[row])).tolist():
            after = frozenset(stones[0] | {(column, heights[column])})
            assert one.values[row, column] == -plain_value(frozenset(stones[1]), after, known)


def test_stored_positions_come_from_their_seed_and_values_from_the_solver(
    connect_four: Game, stored: tuple[Positions, ...]
) -> None:
    solver, rng = solver_module.exact(), random.Random(0)
    for one, plies in zip(stored, arena.TEST_PLIES, strict=True):
        again = random_lines(connect_four, plies, 40, arena.TEST_SEED + plies)
        assert one.lines[:40] == tuple(again)
        for row in rng.sample(range(len(one)), 4 if plies == 12 else 25):
            values = solver(connect_four.after(one.lines[row]))
            assert {a: float(one.values[row, a]) for a in values} == values


@pytest.mark.slow
def test_all_stored_positions_are_made_again(connect_four: Game, stored: tuple[Positions, ...]) -> None:
    for one, again in zip(stored, arena.connect_four_sets(connect_four, solver_module.exact()), strict=True):
        assert one.lines == again.lines and np.array_equal(one.values, again.values, equal_nan=True)
        assert np.array_equal(one.quiet, again.quiet)


def test_file_round_trip(stored: tuple[Positions, ...]) -> None:
    data = arena.to_npz(stored)
    assert data == arena.to_npz(stored)
    for one, again in zip(stored, arena._load(data), strict=True):
        assert (one.label, one.lines) == (again.label, again.lines)
        assert np.array_equal(one.values, again.values, equal_nan=True) and np.array_equal(one.quiet, again.quiet)


def test_exact_play_makes_no_mistakes_and_weaker_players_make_more(
    connect_four: Game, stored: tuple[Positions, ...]
) -> None:
    perfect = exact_player(solver_module.exact(), 0)
    assert [mistakes(connect_four, perfect, one.head(8))[0].wrong for one in stored] == [0] * 4
    weak, weaker = (
        mean_share(mistakes(connect_four, player, one.head(150))[0] for one in stored)
        for player in (mcts_player(connect_four, 100, 0), random_player(0))
    )
    assert 0.03 < weak < 0.18 < weaker < 0.45


def test_a_player_is_asked_only_where_a_move_can_be_a_mistake(
    connect_four: Game, stored: tuple[Positions, ...]
) -> None:
    asked = 0

    def first(states: list[pyspiel.State]) -> list[int]:
        nonlocal asked
        asked += len(states)
        return [state.legal_actions()[0] for state in states]

    one = stored[-1].head(120)
    found, quiet = mistakes(connect_four, first, one, at_once=50)
    assert (found.positions, found.misplayable) == (120, asked) and asked < 120
    everywhere = errs(connect_four, first, one)
    assert found.wrong == everywhere.sum() > quiet.wrong > 0, "as when it is asked everywhere"
    assert (quiet.wrong, quiet.positions) == (everywhere[one.quiet].sum(), one.quiet.sum())  # type: ignore[union-attr]


def test_random_play_errs_as_often_as_the_values_say(connect_four: Game, stored: tuple[Positions, ...]) -> None:
    one = stored[0]
    below = one.values < np.nanmax(one.values, axis=1, keepdims=True)
    expected = (below.sum(axis=1) / (~np.isnan(one.values)).sum(axis=1)).mean()
    found, _ = mistakes(connect_four, random_player(1), one)
    assert found.positions == 1000 and found.misplayable == one.misplayable()
    assert found.share == pytest.approx(expected, abs=0.05)


def test_tic_tac_toe_is_tested_on_all_4520_positions(tic_tac_toe: Game) -> None:
    (everything,) = arena.test_sets(tic_tac_toe)
    assert len(everything) == 4520 and everything.label == "all positions"
    assert [found.wrong for found in mistakes(tic_tac_toe, exact_player(tic_tac_toe_exact(), 0), everything)] == [0]

    def worst(states: list[pyspiel.State]) -> list[int]:
        return [min(values, key=lambda a: values[a]) for values in map(tic_tac_toe_exact(), states)]

    head = everything.head(300)
    assert mistakes(tic_tac_toe, worst, head, at_once=7)[0].wrong == head.misplayable() > 0


def test_games_without_a_solver_have_no_test_positions() -> None:
    assert arena.test_sets(load(spec_from_string("breakthrough"))) == ()


def test_a_solver_that_refuses_is_heard(connect_four: Game) -> None:
    with pytest.raises(ValueError, match="at least 8 stones"):
        solve_positions(connect_four, solver_module.exact(), [(3,)], "1 ply")


def test_random_lines_repeat_and_a_longer_list_begins_with_the_shorter(connect_four: Game) -> None:
    assert random_lines(connect_four, 6, 30, 1)[:10] == random_lines(connect_four, 6, 10, 1)
    assert random_lines(connect_four, 6, 10, 1) != random_lines(connect_four, 6, 10, 2)
    assert len(random_lines(connect_four, 1, 30, 1)) == 7
    assert len(random_lines(connect_four, 1, 30, 1, up_to_symmetry=True)) == 4


def test_random_openings_fall_back_to_shorter_ones_in_short_games(tic_tac_toe: Game) -> None:
    found = random_openings(tic_tac_toe, 9, 20, 0)
    assert len(found) == 20 and not any(tic_tac_toe.after(o.line).is_terminal() for o in found)
    assert len(random_openings(tic_tac_toe, 1, 50, 0)) == 10


def test_openings_of_any_game() -> None:
    hex_game = load(spec_from_string("openspiel:hex(board_size=5)"))
    assert len(openings(hex_game, 12)) == 12 and openings(hex_game, 12) == openings(hex_game, 12)


def test_tic_tac_toe_openings_have_exact_values(tic_tac_toe: Game) -> None:
    found = all_openings(tic_tac_toe, 3, tic_tac_toe_exact())
    assert [sum(len(o.line) == plies for o in found) for plies in range(4)] == [1, 9, 72, 252]
    values = {o.line: o.value for o in found}
    assert values[()] == 0.0 and values[(4,)] == 0.0
    assert values[(0, 1)] == 1.0  # an edge against the corner loses
    assert len(all_lines(tic_tac_toe)) == 4520


def test_all_positions_of_a_large_game_are_refused(connect_four: Game) -> None:
    with pytest.raises(ValueError, match="more than 500 positions"):
        all_lines(connect_four, limit=500)


def test_listed_openings_of_connect_four(connect_four: Game) -> None:
    listed = openings(connect_four, 1000)
    assert len(listed) == BALANCED_COUNT and openings(connect_four, 5) == listed[:5]
    boards = set()
    for opening in listed:
        assert len(opening.line) == BALANCED_PLIES and opening.value == 0.0
        boards |= {key(connect_four.after(opening.line)), key(connect_four.after([6 - a for a in opening.line]))}
    assert len(boards) >= 2 * BALANCED_COUNT - 4  # a board may be its own mirror image
    assert from_json(to_json(listed)) == listed
    candidates = random_lines(connect_four, BALANCED_PLIES, 100, BALANCED_SEED, up_to_symmetry=True)
    assert [line for line in candidates if line in {o.line for o in listed}] == [
        o.line for o in listed if o.line in set(candidates)
    ]


def test_a_listed_opening_is_drawn(connect_four: Game) -> None:
    solver = solver_module.exact(table_bits=22)
    for opening in openings(connect_four, 1):
        assert max(solver(connect_four.after(opening.line)).values()) == 0.0


@pytest.mark.slow
def test_every_tenth_listed_opening_is_drawn(connect_four: Game) -> None:
    solver = solver_module.exact(table_bits=23)
    for opening in openings(connect_four, BALANCED_COUNT)[::10]:
        assert max(solver(connect_four.after(opening.line)).values()) == 0.0
