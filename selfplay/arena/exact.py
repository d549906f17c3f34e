"""Play against the truth: the share of positions in which a player's move gives away game value.

A mistake is a move whose exact value is below the best move's; how soon a game is won does not count. Many positions
cannot be misplayed (all moves keep the value), so shares compare players, on the same positions, and nothing else.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pyspiel
from numpy.typing import NDArray

from selfplay.arena.match import Player, choose
from selfplay.arena.positions import Line, all_lines, random_lines
from selfplay.contract import ExactSolver
from selfplay.game import Game

#: What connect four is tested on: this many random positions at each of these numbers of plies.
TEST_PLIES = (12, 16, 20, 24)
TEST_COUNT = 1000
TEST_SEED = 20_240_704
#: A game with at most this many positions is tested on all of them.
ALL_POSITIONS = 20_000

_ILLEGAL = 127  # in stored values


@dataclass(frozen=True)
class Positions:
    """Solved positions of one game.

    label: what they are, such as "12 plies".
    lines: `[N]`; the moves that lead to each, from the start.
    values: `[N, num_actions]` float32; the exact value of each legal move in utility units, from the point of view of
      the seat to act; NaN for moves that are not legal.
    """

    label: str
    lines: tuple[Line, ...]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lines)

    def states(self, game: Game) -> list[pyspiel.State]:
        """`[N]` fresh states."""
        return [game.after(line) for line in self.lines]

    def misplayable(self) -> int:
        """In how many positions some move is a mistake."""
        return int((np.nanmin(self.values, axis=1) < np.nanmax(self.values, axis=1)).sum())

    def head(self, count: int) -> Positions:
        """The first `count` positions: random ones are in random order, so this is a fair sample of them."""
        return Positions(self.label, self.lines[:count], self.values[:count])


@dataclass(frozen=True)
class Mistakes:
    """How often a player went wrong.

    label: of the positions. wrong: positions in which value was given away. positions: how many were asked.
    misplayable: in how many some move is a mistake.
    """

    label: str
    wrong: int
    positions: int
    misplayable: int

    @property
    def share(self) -> float:
        """Wrong moves per position, in [0, 1]."""
        return self.wrong / self.positions


def solve_positions(game: Game, solver: ExactSolver, lines: Sequence[Line], label: str) -> Positions:
    """Solves the position at the end of each line. Raises `ValueError` where the solver refuses one."""
    values = np.full((len(lines), game.num_actions), np.nan, np.float32)
    for row, line in zip(values, lines, strict=True):
        for action, value in solver(game.after(line)).items():
            row[action] = value
    return Positions(label, tuple(tuple(line) for line in lines), values)


def mistakes(game: Game, player: Player, positions: Positions, at_once: int = 256) -> Mistakes:
    """Asks `player` for a move in every position, `at_once` of them a call, and counts the mistakes."""
    wrong = 0
    best = np.nanmax(positions.values, axis=1)
    for start in range(0, len(positions), at_once):
        states = [game.after(line) for line in positions.lines[start : start + at_once]]
        rows = range(start, start + len(states))
        chosen = positions.values[rows, choose(player, states)]
        wrong += int((chosen < best[rows]).sum())
    return Mistakes(positions.label, wrong, len(positions), positions.misplayable())


def mean_share(found: Iterable[Mistakes]) -> float:
    """The mean of the shares: every set of positions counts the same."""
    return float(np.mean([one.share for one in found]))


def connect_four_sets(game: Game, solver: ExactSolver) -> tuple[Positions, ...]:
    """Makes the stored test sets of connect four anew: `TEST_COUNT` positions at each of `TEST_PLIES`."""
    sets = []
    for plies in TEST_PLIES:
        lines = random_lines(game, plies, TEST_COUNT, TEST_SEED + plies)
        sets.append(solve_positions(game, solver, lines, f"{plies} plies"))
    return tuple(sets)


def test_sets(game: Game) -> tuple[Positions, ...]:
    """The positions on which players of this game are compared with exact play; none where it has no exact solver.

    Read from a file that comes with the package where there is one (connect four), else all positions of the game if
    it has at most `ALL_POSITIONS`. Cached by game id.
    """
    stored = resources.files("selfplay.arena") / "data" / f"{game.spec.id}.positions.npz"
    if "/" not in game.spec.id and stored.is_file():
        return _load(stored.read_bytes())
    if game.spec.exact is None:
        return ()
    try:
        lines = all_lines(game, limit=ALL_POSITIONS)
    except ValueError:
        return ()
    return (solve_positions(game, game.spec.exact(), lines, "all positions"),)


def to_npz(sets: Sequence[Positions]) -> bytes:
    """Sets of positions, each with lines of one length and values that are small integers, as a file (no pickle)."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for one in sets:
        values = np.where(np.isnan(one.values), _ILLEGAL, one.values).astype(np.int8)
        arrays[f"{one.label}/lines"] = np.array(one.lines, np.uint8)
        arrays[f"{one.label}/values"] = values
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


@functools.lru_cache(maxsize=4)
def _load(data: bytes) -> tuple[Positions, ...]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays: Mapping[str, NDArray[np.generic]] = {name: file[name] for name in file.files}
    sets = []
    for name, lines in arrays.items():
        label, kind = name.rsplit("/", 1)
        if kind == "lines":
            values = arrays[f"{label}/values"].astype(np.float32)
            values[values == _ILLEGAL] = np.nan
            sets.append(Positions(label, tuple(tuple(int(a) for a in line) for line in lines), values))
    return tuple(sets)
