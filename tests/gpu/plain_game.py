"""Connect four in plain Python with the methods of a `pyspiel.State`, for machines without OpenSpiel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from selfplay.environments.game import Encoder, RawObservation

ROWS, COLUMNS = 6, 7
_CELLS = ROWS * COLUMNS
_TERMINAL = -4  # pyspiel.PlayerId.TERMINAL
#: One bit a cell, columns side by side with a free bit on top of each.
_UP = ROWS + 1
_LINES = (1, _UP, _UP - 1, _UP + 1)


class State:
    """A position. The observation is `[3, 6, 7]`: first player's stones, second player's, empty; row 0 is lowest."""

    __slots__ = ("_heights", "_planes", "_plies", "_stones", "_winner")

    def __init__(self) -> None:
        self._planes = np.zeros(3 * _CELLS, np.float32)
        self._planes[2 * _CELLS :] = 1
        self._stones = [0, 0]
        self._heights = [0] * COLUMNS
        self._plies = 0
        self._winner = -1

    def clone(self) -> State:
        copy = State.__new__(State)
        copy._planes = self._planes.copy()
        copy._stones = self._stones[:]
        copy._heights = self._heights[:]
        copy._plies, copy._winner = self._plies, self._winner
        return copy

    def child(self, action: int) -> State:
        copy = self.clone()
        copy.apply_action(action)
        return copy

    def apply_action(self, action: int) -> None:
        seat, height = self._plies & 1, self._heights[action]
        cell = height * COLUMNS + action
        self._planes[seat * _CELLS + cell] = 1
        self._planes[2 * _CELLS + cell] = 0
        self._heights[action] = height + 1
        stones = self._stones[seat] = self._stones[seat] | 1 << (action * _UP + height)
        for step in _LINES:
            pairs = stones & stones >> step
            if pairs & pairs >> 2 * step:
                self._winner = seat
        self._plies += 1

    def is_terminal(self) -> bool:
        return self._winner >= 0 or self._plies == _CELLS

    def current_player(self) -> int:
        return _TERMINAL if self.is_terminal() else self._plies & 1

    def legal_actions(self) -> list[int]:
        return [] if self.is_terminal() else [a for a, height in enumerate(self._heights) if height < ROWS]

    def returns(self) -> list[float]:
        if self._winner < 0:
            return [0.0, 0.0]
        return [1.0, -1.0] if self._winner == 0 else [-1.0, 1.0]

    def observation_tensor(self, seat: int) -> np.ndarray:
        return self._planes

    def __str__(self) -> str:
        board = np.argmax(self._planes.reshape(3, ROWS, COLUMNS), 0)[::-1]
        return "".join("".join("xo."[cell] for cell in row) + "\n" for row in board)


class _Rules:
    """What a `pyspiel.Game` says of itself, as far as observations need it."""

    make_py_observer = None  # marks a game in Python

    def get_type(self) -> Any:
        return SimpleNamespace(provides_observation_tensor=True)

    def observation_tensor_shape(self) -> list[int]:
        return [3, ROWS, COLUMNS]

    def new_initial_state(self) -> State:
        return State()


class PlainConnectFour:
    """As `selfplay.environments.game.Game`, for a search and a generator."""

    num_players, num_actions, value_scale, outcomes = 2, COLUMNS, 1.0, (1.0, 0.0, -1.0)
    string = "connect_four()"

    def __init__(self) -> None:
        self.game = _Rules()
        planes = np.arange(3 * _CELLS, dtype=np.int32).reshape(3, _CELLS)
        gather = np.stack([planes[list(order)].reshape(-1) for order in ((0, 1, 2), (1, 0, 2))])
        raw = RawObservation(self.game)  # type: ignore[arg-type]
        self.encoder = Encoder(self.game, (3, ROWS, COLUMNS), gather, False, raw, ())  # type: ignore[arg-type]

    def new_initial_state(self) -> State:
        return State()
