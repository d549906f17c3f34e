"""How games are played, and what the seed of a game decides in it.

Whoever has a game's seed, its settings and the weights behind a move can repeat the search that found the move: nothing
else in a game is random. What is drawn, and in which order, is written down here once, for those who play and for those
who check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfplay.environments.game import Game

if TYPE_CHECKING:
    import pyspiel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PlaySettings:
    """How games are played; see `trainers.alphazero.config` for what each setting means to a person.

    simulations: of a full search; cheap_simulations: of a cheap one; full_fraction: share of full ones.
    dirichlet_alpha: PUCT root noise, None: 10 / number of legal actions.
    resign_threshold: in [0, 1]; a seat resigns after `resign_moves` moves in a row with less hope than its negative.
    """

    slots: int
    simulations: int
    cheap_simulations: int = 8
    full_fraction: float = 1.0
    opening_fraction: float = 0.7
    opening_plies: int = 8
    opening_choices: int = 1
    temperature: float = 1.0
    temperature_plies: int = 8
    dirichlet_alpha: float | None = None
    resign_threshold: float | None = None
    resign_moves: int = 3
    resign_playon: float = 0.2
    ply_limit: int = 512
    cache_entries: int = 200_000


@dataclass(frozen=True)
class Opening:
    """A line of random moves, and the position after it."""

    actions: tuple[int, ...]
    state: pyspiel.State


class GameDraws:
    """The random numbers of one game, in the order in which they are drawn.

    plays_on: resignation is off in this game, to measure its false positives.
    openings: the random lines that the game may begin with, of which one is played; none: it begins at the start.
    """

    def __init__(self, game: Game, settings: PlaySettings, gumbel: bool, seed: int) -> None:
        """gumbel: the noise at the root is Gumbel's, not Dirichlet's."""
        s = self._settings = settings
        self._gumbel = gumbel
        rng = self._rng = np.random.Generator(np.random.PCG64(seed))
        self.plays_on = s.resign_threshold is not None and bool(rng.random() < s.resign_playon)
        self.openings: tuple[Opening, ...] = ()
        if s.opening_plies and rng.random() < s.opening_fraction:
            plies = min(int(rng.integers(1, s.opening_plies + 1)), s.ply_limit - 1)
            self.openings = tuple(self._opening(game, plies) for _ in range(s.opening_choices))

    def _opening(self, game: Game, plies: int) -> Opening:
        """Random moves that do not end the game: a line that would end it is cut short of it."""
        line: list[int] = []
        state = game.new_initial_state()
        while len(line) < plies:
            legal = state.legal_actions()
            action = legal[int(self._rng.integers(len(legal)))]
            ahead = state.clone()
            ahead.apply_action(action)
            if ahead.is_terminal():
                break
            line.append(action)
            state = ahead
        return Opening(tuple(line), state)

    def search(self, count: int) -> tuple[bool, Array | None]:
        """Whether the next search is a full one, and the noise `[count]` of its root's legal actions; None: none."""
        s = self._settings
        full = s.full_fraction >= 1.0 or bool(self._rng.random() < s.full_fraction)
        if self._gumbel:
            return full, self._rng.gumbel(size=count)
        return full, self._rng.dirichlet([s.dirichlet_alpha or 10.0 / count] * count) if full else None

    def move(self, ply: int, actions: Array, visits: Array, best: int) -> int:
        """The action to play after a search. actions, visits: `[K]` of its root; best: what the search prefers."""
        s = self._settings
        if self._gumbel or s.temperature == 0 or ply >= s.temperature_plies or not visits.any():
            return best
        weights = (visits / visits.max()) ** (1.0 / s.temperature)
        return int(self._rng.choice(actions, p=weights / weights.sum()))
