"""Matches: sides, counting, intervals, the ply limit, and the fixed opponents."""

from __future__ import annotations

import math

import pyspiel
import pytest

from envs.games._tic_tac_toe_exact import exact
from selfplay.environments.game import Game, load, spec_from_string
from selfplay.evaluation.match import Match, Player, play_match, wilson
from selfplay.evaluation.openings import all_openings, random_openings
from selfplay.evaluation.players import exact_player, mcts_player, random_player


@pytest.fixture(scope="module")
def tic_tac_toe() -> Game:
    return load(spec_from_string("tic_tac_toe"))


@pytest.fixture(scope="module")
def connect_four() -> Game:
    return load(spec_from_string("connect_four"))


def first(states: list[pyspiel.State]) -> list[int]:
    """Always the lowest legal action."""
    return [state.legal_actions()[0] for state in states]


def last(states: list[pyspiel.State]) -> list[int]:
    """Always the highest legal action."""
    return [state.legal_actions()[-1] for state in states]


def test_every_opening_is_played_from_both_sides(connect_four: Game) -> None:
    lines = [(3,), (0, 1), (2, 2, 2)]
    result = play_match(connect_four, first, last, lines)
    assert result.played == 6 and result.wins + result.draws + result.losses == 6 and result.unfinished == 0
    assert [(game.opening, game.seat) for game in result.games] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    for game in result.games:
        assert game.actions[: len(lines[game.opening])] == lines[game.opening]
        state = connect_four.after(game.actions)
        assert state.is_terminal() and state.returns()[game.seat] == game.utility
        replay = connect_four.after(lines[game.opening])
        for action in game.actions[len(lines[game.opening]) :]:
            assert action == (first if replay.current_player() == game.seat else last)([replay])[0]
            replay.apply_action(action)


def test_swapping_the_players_swaps_wins_and_losses(connect_four: Game) -> None:
    lines = [opening.line for opening in random_openings(connect_four, 4, 20, seed=1)]
    there, back = play_match(connect_four, first, last, lines), play_match(connect_four, last, first, lines)
    assert (there.wins, there.draws, there.losses) == (back.losses, back.draws, back.wins)
    assert there.score == pytest.approx(1 - back.score)
    assert sum(there.per_opening().values()) == pytest.approx(there.score * 40)


def test_a_player_against_itself_scores_one_half_when_it_knows_no_seat(connect_four: Game) -> None:
    lines = [opening.line for opening in random_openings(connect_four, 3, 15, seed=2)]
    assert play_match(connect_four, first, first, lines).score == 0.5


def test_players_are_asked_for_all_games_at_once(connect_four: Game) -> None:
    sizes: list[int] = []

    def counting(states: list[pyspiel.State]) -> list[int]:
        sizes.append(len(states))
        return first(states)

    play_match(connect_four, counting, last, [(), (3,)])
    assert sizes[0] == 2 and len(sizes) <= 42


def test_ply_limit_is_counted_apart_and_worth_one_half(connect_four: Game) -> None:
    result = play_match(connect_four, first, last, [(), (3, 3)], ply_limit=5)
    assert (result.wins, result.draws, result.losses, result.unfinished) == (0, 0, 0, 4)
    assert result.score == 0.5
    assert all(g.ended == "ply_limit" and g.utility is None and len(g.actions) == 5 for g in result.games)


def test_a_match_can_be_stopped_early(tic_tac_toe: Game) -> None:
    match = Match(tic_tac_toe, first, last, [(), (0, 3, 1, 4)])
    assert math.isnan(match.result().score) and match.result().interval() == (0.0, 1.0)
    assert match.advance()
    assert match.result().played == 1 and match.result().wins == 1
    while match.advance():
        pass
    assert match.done and match.result().played == 4


@pytest.mark.parametrize(("bad", "message"), [(lambda s: [99] * len(s), "not legal"), (lambda s: [], "gave 0")])
def test_a_player_that_breaks_the_rules_is_an_error_not_a_random_move(
    tic_tac_toe: Game, bad: Player, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        play_match(tic_tac_toe, bad, first, [()])


def test_openings_that_end_the_game_and_games_for_three_are_refused(tic_tac_toe: Game) -> None:
    with pytest.raises(ValueError, match="opening 1 of openspiel/tic_tac_toe-v0 ends the game"):
        play_match(tic_tac_toe, first, last, [(), (0, 3, 1, 4, 2)])
    with pytest.raises(ValueError, match="cannot be played as a match"):
        play_match(load(spec_from_string("kuhn_poker")), first, last, [()])


def test_wilson_interval() -> None:
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson 1927; tables agree
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10)[1] == 1.0
    low, high = wilson(368, 400)
    assert low < 0.92 < high and high - low < 0.06


def test_exact_play_keeps_the_value_of_every_opening(tic_tac_toe: Game) -> None:
    solver = exact()
    openings = all_openings(tic_tac_toe, 3, solver)
    result = play_match(
        tic_tac_toe, exact_player(solver, 1), exact_player(solver, 2), [opening.line for opening in openings]
    )
    for game in result.games:
        value = openings[game.opening].value
        assert game.utility == (value if game.seat == 0 else 0.0 - (value or 0.0))
    against_random = play_match(tic_tac_toe, exact_player(solver, 1), random_player(3), [o.line for o in openings])
    for game in against_random.games:
        value = openings[game.opening].value or 0.0
        assert game.utility is not None and game.utility >= (value if game.seat == 0 else -value)


def test_exact_player_asks_another_where_the_solver_refuses(tic_tac_toe: Game) -> None:
    solver = exact()

    def late(state: pyspiel.State) -> dict[int, float]:
        if state.move_number() < 4:
            raise ValueError("too early")
        return dict(solver(state))

    with pytest.raises(ValueError, match="too early"):
        play_match(tic_tac_toe, exact_player(late, 0), first, [()])
    assert play_match(tic_tac_toe, exact_player(late, 0, otherwise=first), first, [()]).played == 2


def test_opponents_are_ordered_by_strength_and_repeat_under_a_seed(connect_four: Game) -> None:
    lines = [opening.line for opening in random_openings(connect_four, 4, 12, seed=3)]
    weak = play_match(connect_four, mcts_player(connect_four, 50, 1), random_player(2), lines)
    assert weak.score > 0.85
    strong = play_match(connect_four, mcts_player(connect_four, 800, 1), mcts_player(connect_four, 20, 2), lines)
    assert strong.score > 0.75
    assert play_match(connect_four, mcts_player(connect_four, 50, 1), random_player(2), lines) == weak


def test_mcts_proves_a_win_in_one(connect_four: Game) -> None:
    state = connect_four.after((3, 0, 3, 0, 3, 0))
    assert mcts_player(connect_four, 100, 0)([state]) == [3]
