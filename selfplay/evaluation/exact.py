"""Play against the truth: the share of positions in which a player's move gives away game value.

A mistake is a move whose exact value is below the best move's: a win turned into a draw or a loss, a draw turned into a
loss. How soon a game is won does not count. Many positions cannot be misplayed (all moves keep the value), so shares
compare players, on the same positions, and nothing else.

Connect four is tested on two kinds of positions, of 12, 16, 20 and 24 plies each:

- **random positions**: uniformly random legal moves from the start; lines that end the game are discarded, and so are
  repeated positions. In 31% (12 plies) to 59% (24 plies) of them the side to move can win at once, which nobody who
  looks one move ahead misses;
- **quiet positions**: those of them in which no legal move ends the game at once. So they are what one gets who draws
  random lines and discards, too, those that are about to end. What is left is decided further ahead, and whoever sees
  a win at once errs in a larger share of them: MCTS-1000 in 6.4%, against 3.8% of the random positions.

A move is asked for once, for both. Where shares of several numbers of plies are taken together, each counts the same.

The lines are drawn and solved here (`python -m selfplay.evaluation.build_data positions`); none come from elsewhere.
Tic-tac-toe is tested on all of its positions instead: it has no lines of 12 plies, and nothing need be drawn.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
import pyspiel
from numpy.typing import NDArray

from selfplay.contract import ExactSolver
from selfplay.environments.game import Game
from selfplay.evaluation.match import Player, choose
from selfplay.evaluation.positions import Line, all_lines, is_quiet, random_lines

#: What connect four is tested on: this many random positions at each of these numbers of plies.
TEST_PLIES = (12, 16, 20, 24)
TEST_COUNT = 1000
TEST_SEED = 20_240_704
RANDOM_POSITIONS, QUIET_POSITIONS, ALL = "random positions", "quiet positions", "all positions"
_QUIET = "quiet, "
#: A game with at most this many positions is tested on all of them.
ALL_POSITIONS = 20_000

_ILLEGAL = 127  # in stored values


@dataclass(frozen=True)
class Positions:
    """Solved positions of one game.

    label: what they are: "12 plies" (random positions) or "all positions".
    lines: `[N]`; the moves that lead to each, from the start.
    values: `[N, num_actions]` float32; the exact value of each legal move in utility units, from the point of view of
      the seat to act; NaN for moves that are not legal.
    quiet: `[N]` bool, where no legal move ends the game; None for positions that were not drawn at random.
    """

    label: str
    lines: tuple[Line, ...]
    values: NDArray[np.float32]
    quiet: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Label -> `[N]`, which positions it is about: all of them and, of random ones, "quiet, 12 plies"."""
        every = {self.label: np.ones(len(self), bool)}
        return every if self.quiet is None else every | {_QUIET + self.label: self.quiet}

    def states(self, game: Game) -> list[pyspiel.State]:
        """`[N]` fresh states."""
        return [game.after(line) for line in self.lines]

    def can_go_wrong(self) -> NDArray[np.bool_]:
        """`[N]`, where some move is a mistake."""
        return np.asarray(np.nanmin(self.values, axis=1) < np.nanmax(self.values, axis=1))

    def misplayable(self) -> int:
        """In how many positions some move is a mistake."""
        return int(self.can_go_wrong().sum())

    def head(self, count: int) -> Positions:
        """The first `count` positions: random ones are in random order, so this is a fair sample of them."""
        return self[:count]

    def __getitem__(self, rows: slice) -> Positions:
        quiet = None if self.quiet is None else self.quiet[rows]
        return Positions(self.label, self.lines[rows], self.values[rows], quiet)


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


def kind_of(label: str) -> str:
    """The kind of positions that a label is about: "random positions", "quiet positions", else the label itself."""
    if label.startswith(_QUIET):
        return QUIET_POSITIONS
    return RANDOM_POSITIONS if label.endswith(" plies") else label


def wrong_moves(game: Game, player: Player, positions: Positions, at_once: int = 256) -> NDArray[np.bool_]:
    """`[N]`, where `player` makes a mistake.

    It is asked for a move only where one can be made, in `at_once` positions a call: elsewhere its answer is known to
    be no mistake, and about half of the time of a search is saved.
    """
    wrong = np.zeros(len(positions), bool)
    best = np.nanmax(positions.values, axis=1)
    asked = np.flatnonzero(positions.can_go_wrong())
    for start in range(0, len(asked), at_once):
        rows = asked[start : start + at_once]
        chosen = positions.values[rows, choose(player, [game.after(positions.lines[row]) for row in rows])]
        wrong[rows] = chosen < best[rows]
    return wrong


def mistakes(game: Game, player: Player, positions: Positions, at_once: int = 256) -> tuple[Mistakes, ...]:
    """How often `player` makes a mistake: in all of the positions and, of random ones, in those that are quiet."""
    wrong, can = wrong_moves(game, player, positions, at_once), positions.can_go_wrong()
    return tuple(
        Mistakes(label, int(wrong[rows].sum()), int(rows.sum()), int(can[rows].sum()))
        for label, rows in positions.kinds().items()
    )


def mean_share(found: Iterable[Mistakes]) -> float:
    """The mean of the shares: every set of positions counts the same."""
    return float(np.mean([one.share for one in found]))


def connect_four_sets(game: Game, solver: ExactSolver) -> tuple[Positions, ...]:
    """Makes the stored test sets of connect four anew: `TEST_COUNT` positions at each of `TEST_PLIES`."""
    sets = []
    for plies in TEST_PLIES:
        lines = random_lines(game, plies, TEST_COUNT, TEST_SEED + plies)
        solved = solve_positions(game, solver, lines, f"{plies} plies")
        sets.append(replace(solved, quiet=np.array([is_quiet(state) for state in solved.states(game)])))
    return tuple(sets)


def test_sets(game: Game) -> tuple[Positions, ...]:
    """The positions on which players of this game are compared with exact play; none where it has no exact solver.

    Read from a file that comes with the package where there is one (connect four), else all positions of the game if
    it has at most `ALL_POSITIONS`. Cached by game id.
    """
    stored = resources.files("selfplay.evaluation") / "data" / f"{game.spec.id}.positions.npz"
    if "/" not in game.spec.id and stored.is_file():
        return _load(stored.read_bytes())
    if game.spec.exact is None:
        return ()
    try:
        lines = all_lines(game, limit=ALL_POSITIONS)
    except ValueError:
        return ()
    return (solve_positions(game, game.spec.exact(), lines, ALL),)


def to_npz(sets: Sequence[Positions]) -> bytes:
    """Sets of positions, each with lines of one length and values that are small integers, as a file (no pickle)."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for one in sets:
        values = np.where(np.isnan(one.values), _ILLEGAL, one.values).astype(np.int8)
        arrays[f"{one.label}/lines"] = np.array(one.lines, np.uint8)
        arrays[f"{one.label}/values"] = values
        if one.quiet is not None:
            arrays[f"{one.label}/quiet"] = np.packbits(one.quiet)
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
            bits = arrays.get(f"{label}/quiet")
            quiet = None if bits is None else np.unpackbits(bits.astype(np.uint8), count=len(lines)).astype(bool)
            sets.append(Positions(label, tuple(tuple(int(a) for a in line) for line in lines), values, quiet))
    return tuple(sets)
