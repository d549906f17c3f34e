"""What an environment author imports: the declaration of a game.

A game is an OpenSpiel game: `pyspiel.State` is the interface of its rules, and nothing here repeats it. A `GameSpec`
adds what OpenSpiel lacks: an id with a version, the symmetries of the board, how the observation is to be read, a text
view and a drawing. This module imports neither torch nor ray, and pyspiel only for type checkers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyspiel

ENV_ID = re.compile(r"^[a-z][a-z0-9_]*(/[a-z0-9][a-z0-9_]*)?-v(0|[1-9][0-9]*)$")

#: Exact game values: legal action -> value (utility units) from the point of view of the seat to act in that state.
ExactValues = Mapping[int, float]
#: Solves one state. Raises `ValueError` for a state that is too far from the end to be solved at once.
ExactSolver = Callable[["pyspiel.State"], ExactValues]


@dataclass(frozen=True)
class Symmetry:
    """A bijection of states under which the rules do not change (a mirror, a rotation of the board).

    name: what a person calls it, such as "mirror".
    actions: `[num_distinct_actions]` ints; playing `a` in a state corresponds to playing `actions[a]` in its image.
    observation: maps observations `[..., *observation_shape]` (any dtype) of states to those of their images. It must
      be a view or a permutation: entries are moved, never changed.
    """

    name: str
    actions: tuple[int, ...]
    observation: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class GameSpec:
    """One game that can be played: what the registry finds, `check-env` proves and the factory runs.

    id: "name-vN"; N rises when the rules, the observation or the action numbering change.
    game: the full OpenSpiel game string, such as "hex(board_size=5)".
    summary: one sentence for listings.
    ply_limit: moves after which an episode ends as `truncated` (chance moves not counted); never scored as a draw.
    symmetries: without the identity.
    seat_planes: for observations that do not depend on the seat that asks. `seat_planes[s][i]` is the index of the
      observation plane that seat `s`, to act, should see at place `i`; so `((0, 1, 2), (1, 0, 2))` swaps "first
      player's stones" and "second player's stones". None: the planes are taken as they are and, where OpenSpiel's
      observation is the same for both seats, a plane with the seat to move is appended.
    policy_planes: where actions are laid out as [height, width, planes] over the board, the number of planes; the net
      then uses a convolutional policy head. None: a dense head.
    text: the state as a person writes it (one line or several); default `str(state)`.
    draw: the state as a board for a terminal (rich markup allowed); default `text`.
    action_text: an action as a person writes it; default `state.action_to_string`.
    exact: makes a solver that gives the exact value of every legal action, where one is known.
    register: called once before the game is loaded; registers a Python game with pyspiel. Must be idempotent.
    licence: SPDX id under which episodes of this game are published.
    """

    id: str
    game: str
    summary: str
    ply_limit: int
    symmetries: tuple[Symmetry, ...] = ()
    seat_planes: tuple[tuple[int, ...], ...] | None = None
    policy_planes: int | None = None
    text: Callable[[pyspiel.State], str] | None = None
    draw: Callable[[pyspiel.State], str] | None = None
    action_text: Callable[[pyspiel.State, int], str] | None = None
    exact: Callable[[], ExactSolver] | None = None
    register: Callable[[], None] | None = None
    licence: str = "CC0-1.0"

    def __post_init__(self) -> None:
        if not ENV_ID.match(self.id):
            raise ValueError(f"environment id {self.id!r} is not of the form name-vN, such as connect_four-v0")
        if self.ply_limit < 1:
            raise ValueError(f"{self.id}: ply_limit must be at least 1, got {self.ply_limit}")

    @property
    def name(self) -> str:
        """The id without its version: "connect_four"."""
        return self.id.rsplit("-v", 1)[0]

    @property
    def version(self) -> int:
        """The version in the id: 0 for "connect_four-v0"."""
        return int(self.id.rsplit("-v", 1)[1])
