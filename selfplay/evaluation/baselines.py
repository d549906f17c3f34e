"""What simple players do on the test positions, so that a share of mistakes has something to be compared with.

On the same positions, one by one: a run that is measured on the first hundred is compared on the first hundred. For the
games that come with stored test positions, or few enough of them, the results are kept here, too, as tree search takes
longer than a person waits; `python -m selfplay.evaluation.build_data baselines` makes them anew.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pyspiel
from numpy.typing import NDArray

from selfplay.environments.game import Game
from selfplay.evaluation.exact import Positions, test_sets
from selfplay.evaluation.match import Player, choose
from selfplay.evaluation.players import mcts_player

#: Rollouts of the tree searches that are compared with, and their seed.
ROLLOUTS, SEED = (100, 1000), 20_261_129
RANDOM, TWO_PLY = "random moves", "two-ply rule"


@dataclass(frozen=True)
class Baseline:
    """A simple player's mistakes. player: its name. wrong: positions in which it gave value away; of random moves the
    expected number. positions: how many it was asked."""

    player: str
    wrong: float
    positions: int


@dataclass(frozen=True)
class Compared:
    """Test positions that a player was asked about. label: of the set and kind. misplayable: in how many of them some
    move is a mistake. baselines: what simple players did there."""

    label: str
    positions: int
    misplayable: int
    baselines: tuple[Baseline, ...]


def compared(game: Game, positions: Positions) -> tuple[Compared, ...]:
    """A test set of a game, or its first so many positions, with what simple players do there; by kind of positions."""
    wrong, can = expected_errors(game, positions), positions.can_go_wrong()
    found = []
    for label, rows in positions.kinds().items():
        count = int(rows.sum())
        players = tuple(Baseline(name, float(errors[rows].sum()), count) for name, errors in wrong.items())
        found.append(Compared(label, count, int(can[rows].sum()), players))
    return tuple(found)


def two_ply_player() -> Player:
    """Wins if it can, else leaves the other no win at once if it can, else plays nearest the middle of the actions."""

    def wins(state: pyspiel.State, action: int) -> bool:
        after = state.child(action)
        return bool(after.is_terminal() and after.returns()[state.current_player()] > 0)

    def one(state: pyspiel.State) -> int:
        middle = (state.get_game().num_distinct_actions() - 1) / 2
        legal = sorted(state.legal_actions(), key=lambda action: (abs(action - middle), action))
        for action in legal:
            if wins(state, action):
                return int(action)
        for action in legal:
            after = state.child(action)
            if after.is_terminal() or after.current_player() == state.current_player():
                return int(action)
            if not any(wins(after, reply) for reply in after.legal_actions()):
                return int(action)
        return int(legal[0])

    return lambda states: [one(state) for state in states]


def errs(game: Game, player: Player, positions: Positions) -> NDArray[np.bool_]:
    """`[N]`, where a move gives value away. In order: a player may draw random numbers as it goes."""
    chosen = choose(player, positions.states(game))
    best = np.nanmax(positions.values, axis=1)
    return np.asarray(positions.values[np.arange(len(positions)), chosen] < best)


def expected_errors(game: Game, positions: Positions) -> dict[str, NDArray[np.float64]]:
    """Player -> `[N]`, 1 where it errs; of random moves the probability.

    Of random moves, of a rule that looks two plies ahead, and of tree searches where those are kept.
    positions: a test set of the game, or its first so many.
    """
    count = len(positions)
    below = positions.values < np.nanmax(positions.values, axis=1, keepdims=True)
    legal = ~np.isnan(positions.values)
    stored = _stored(game.spec.id).get(positions.label, {})
    if len(next(iter(stored.values()), ())) < count:
        stored = {TWO_PLY: errs(game, two_ply_player(), positions)}
    return {RANDOM: below.sum(1) / legal.sum(1), **{name: wrong[:count] * 1.0 for name, wrong in stored.items()}}


def make(game: Game) -> bytes:
    """The results on all test positions of a game, as a file (no pickle): a bit a position, by set and player."""
    arrays = {}
    for number, one in enumerate(test_sets(game)):
        players = {TWO_PLY: two_ply_player()}
        players |= {f"MCTS-{n}": mcts_player(game, n, SEED + number) for n in ROLLOUTS}
        for name, player in players.items():
            arrays[f"{one.label}/{name}"] = np.concatenate([[len(one)], np.packbits(errs(game, player, one))])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: rows.astype(np.uint16) for name, rows in arrays.items()})
    return buffer.getvalue()


@functools.cache
def _stored(env_id: str) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Set of positions -> player -> `[N]`, where it errs; empty where nothing is kept of this game."""
    place = resources.files("selfplay.evaluation") / "data" / f"{env_id}.baselines.npz"
    if "/" in env_id or not place.is_file():
        return {}
    found: dict[str, dict[str, NDArray[np.bool_]]] = {}
    with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as file:
        for name in file.files:
            label, player = name.rsplit("/", 1)
            count, bits = int(file[name][0]), file[name][1:].astype(np.uint8)
            found.setdefault(label, {})[player] = np.unpackbits(bits, count=count).astype(bool)
    return found
