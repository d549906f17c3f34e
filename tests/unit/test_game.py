"""A loaded game: what a net is shown of it, in what units its values are, and what rules it out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyspiel
import pytest

from selfplay.environments import registry
from selfplay.environments.game import Game, RawObservation, load, spec_from_string, unsearchable
from selfplay.errors import UserError

SHIPPED = ("tic_tac_toe", "connect_four", "othello", "breakthrough", "hex", "go", "chess")
DERIVED = (
    "openspiel:hex(board_size=5)",
    "openspiel:dots_and_boxes(num_rows=2,num_cols=2)",
    "openspiel:mancala",
    "openspiel:oware",
    "openspiel:tic_tac_toe",
    "openspiel:clobber(rows=4,columns=4)",
    "openspiel:nim",
    "openspiel:pentago",
)


def states(game: Game, games: int = 3, plies: int = 40, seed: int = 0) -> list[pyspiel.State]:
    """Positions of random games, finished ones left out."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(games):
        state = game.new_initial_state()
        for _ in range(plies):
            if state.is_terminal():
                break
            found.append(state.clone())
            state.apply_action(int(rng.choice(state.legal_actions())))
    return found


@pytest.mark.parametrize("name", SHIPPED + DERIVED)
def test_the_net_sees_what_the_seat_to_act_sees(name: str) -> None:
    """The encoder's entries are OpenSpiel's own observation for the seat to act, permuted, and whose move it is."""
    game = load(registry.find(name))
    encoder = game.encoder
    out = np.full(encoder.shape, np.nan, np.float32)
    seats = set()
    for state in states(game):
        seat = state.current_player()
        seats.add(seat)
        seen = encoder.encode(state)
        assert seen.shape == encoder.shape and seen.dtype == np.float32 and np.isfinite(seen).all()
        assert encoder.encode(state, out) is out
        np.testing.assert_array_equal(seen, out)
        raw = np.array(state.observation_tensor(seat), np.float32)
        flat = seen.reshape(-1)
        np.testing.assert_array_equal(flat[: len(raw)], raw[encoder.gather[seat]])
        assert sorted(encoder.gather[seat]) == list(range(len(raw)))
        assert (flat[len(raw) :] == seat).all()
        assert (encoder.size > len(raw)) == encoder.seat_plane
    assert seats == {0, 1}


@pytest.mark.parametrize("name", SHIPPED + DERIVED)
def test_whose_move_it_is_can_be_seen(name: str) -> None:
    """Either OpenSpiel's observation depends on who asks, or seat planes swap it, or a plane names the seat."""
    game = load(registry.find(name))
    raw = RawObservation(game.game)
    differs = False
    for state in states(game):
        views = []
        for seat in range(2):
            raw.set_from(state, seat)
            views.append(raw.tensor.copy())
        differs |= not np.array_equal(*views)
    swapped = not np.array_equal(game.encoder.gather[0], game.encoder.gather[1])
    assert differs + swapped + game.encoder.seat_plane == 1


@pytest.mark.parametrize("name", SHIPPED + DERIVED[:4])
def test_symmetries_map_what_the_net_sees(name: str) -> None:
    """Played in the mirror, every position is the mirror image for the net, too, from either seat."""
    game = load(registry.find(name))
    for symmetry in game.spec.symmetries:
        rng = np.random.default_rng(1)
        state, image = game.new_initial_state(), game.new_initial_state()
        for _ in range(60):
            if state.is_terminal():
                break
            mapped = symmetry.observation(game.encoder.encode(state))
            np.testing.assert_array_equal(mapped, game.encoder.encode(image), err_msg=symmetry.name)
            action = int(rng.choice(state.legal_actions()))
            state.apply_action(action)
            image.apply_action(symmetry.actions[action])


def test_seat_planes_show_own_stones_first() -> None:
    game = load(registry.find("connect_four"))
    first = game.encoder.encode(game.after([3]))  # seat 1 to act: the stone is the other's
    assert first[1].sum() == 1 and first[1, 0, 3] == 1 and first[0].sum() == 0
    second = game.encoder.encode(game.after([3, 2]))  # seat 0 to act
    assert second[0, 0, 3] == 1 and second[1, 0, 2] == 1
    assert second[:2].sum() == 2 and second[2].sum() == 40


def test_without_seat_planes_a_plane_names_the_seat() -> None:
    game = load(replace(registry.find("tic_tac_toe"), seat_planes=None))
    assert game.encoder.seat_plane and game.encoder.shape == (4, 3, 3)
    assert (game.encoder.encode(game.after([0, 4]))[-1] == 0).all()
    assert (game.encoder.encode(game.after([0]))[-1] == 1).all()


def test_wrong_seat_planes_are_refused() -> None:
    spec = registry.find("tic_tac_toe")
    for planes in (((0, 1, 2), (1, 0, 1)), ((0, 1, 2),), ((0, 1), (1, 0))):
        with pytest.raises(ValueError, match="permutation of 3 planes"):
            load(replace(spec, seat_planes=planes))


def test_values_are_in_units_of_the_largest_utility() -> None:
    margin = load(spec_from_string("dots_and_boxes(num_rows=2,num_cols=2,utility_margin=true)"))
    assert margin.value_scale == 4.0 and margin.outcomes is None
    draw = load(registry.find("connect_four"))
    assert draw.value_scale == 1.0 and draw.outcomes == (1.0, 0.0, -1.0)


@pytest.mark.parametrize(
    ("string", "reason"),
    [
        ("backgammon", "it has chance events"),
        ("kuhn_poker", "it has chance events"),
        ("goofspiel(imp_info=False)", "its players move simultaneously"),
        ("phantom_ttt", "its players have hidden information"),
        ("coop_box_pushing", "its players move simultaneously"),
        ("chinese_checkers(players=3)", "it has 3 players"),
        ("catch", "it has 1 player,"),
    ],
)
def test_games_that_the_search_cannot_play_name_the_property(string: str, reason: str) -> None:
    assert reason in (unsearchable(load(spec_from_string(string))) or "nothing")


@pytest.mark.parametrize("name", SHIPPED + DERIVED)
def test_games_that_the_search_can_play(name: str) -> None:
    assert unsearchable(load(registry.find(name))) is None


def test_strings_that_are_no_game() -> None:
    with pytest.raises(UserError, match="nearest name is 'connect_four'"):
        spec_from_string("openspiel:conect_four")
    with pytest.raises(UserError, match="cannot load"):
        spec_from_string("hex(nonsense=3)")
    spec = spec_from_string("openspiel:hex(board_size=5)")
    assert (spec.id, spec.game, spec.ply_limit) == ("openspiel/hex-v0", "hex(board_size=5)", 25)


def test_a_game_without_a_seat_to_act_has_no_encoder() -> None:
    game = load(spec_from_string("goofspiel"))
    with pytest.raises(UserError, match="no observation tensor"):
        _ = game.encoder
