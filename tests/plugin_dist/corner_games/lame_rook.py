"""Lame rook: one rook on a board of four by four; whoever brings it into the corner wins.

Description:
    The rook starts far from the corner. In turn each seat moves it any number of squares towards the left, or towards
    the bottom. Whoever moves it into the corner wins. (Nim with two heaps.)

Actions:
    6. Action n - 1 moves it n squares to the left, action 3 + n - 1 n squares down, n from 1 to 3.

Observation:
    Planes [1, 4, 4] with entries 0 or 1: where the rook stands; row 0 is the bottom. A plane with the seat to act
    follows.

Returns:
    Per seat: win 1, loss -1.

Episode end:
    The rook in the corner.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyspiel

from corner_games._board import SIZE
from selfplay.contract import GameSpec, Symmetry

GAME_TYPE = pyspiel.GameType(
    short_name="lame_rook",
    long_name="Lame rook",
    dynamics=pyspiel.GameType.Dynamics.SEQUENTIAL,
    chance_mode=pyspiel.GameType.ChanceMode.DETERMINISTIC,
    information=pyspiel.GameType.Information.PERFECT_INFORMATION,
    utility=pyspiel.GameType.Utility.ZERO_SUM,
    reward_model=pyspiel.GameType.RewardModel.TERMINAL,
    max_num_players=2,
    min_num_players=2,
    provides_information_state_string=False,
    provides_information_state_tensor=False,
    provides_observation_string=True,
    provides_observation_tensor=True,
    parameter_specification={},
)
GAME_INFO = pyspiel.GameInfo(
    num_distinct_actions=2 * (SIZE - 1),
    max_chance_outcomes=0,
    num_players=2,
    min_utility=-1.0,
    max_utility=1.0,
    utility_sum=0.0,
    max_game_length=2 * (SIZE - 1),
)


class LameRook(pyspiel.Game):
    def __init__(self, params: Any = None) -> None:
        super().__init__(GAME_TYPE, GAME_INFO, params or {})

    def new_initial_state(self) -> State:
        return State(self)

    def make_py_observer(self, iig_obs_type: Any = None, params: Any = None) -> Observer:
        return Observer()


class State(pyspiel.State):
    def __init__(self, game: LameRook) -> None:
        super().__init__(game)
        self.left = SIZE - 1
        self.down = SIZE - 1
        self.seat = 0

    def current_player(self) -> int:
        return int(pyspiel.PlayerId.TERMINAL) if self.is_terminal() else self.seat

    def _legal_actions(self, player: int) -> list[int]:
        return [*range(self.left), *range(SIZE - 1, SIZE - 1 + self.down)]

    def _apply_action(self, action: int) -> None:
        if action < SIZE - 1:
            self.left -= action + 1
        else:
            self.down -= action - (SIZE - 1) + 1
        self.seat = 1 - self.seat

    def _action_to_string(self, player: int, action: int) -> str:
        return f"{'left' if action < SIZE - 1 else 'down'} {action % (SIZE - 1) + 1}"

    def is_terminal(self) -> bool:
        return self.left == self.down == 0

    def returns(self) -> list[float]:
        if not self.is_terminal():
            return [0.0, 0.0]
        return [-1.0, 1.0] if self.seat == 0 else [1.0, -1.0]

    def __str__(self) -> str:
        rows = [["."] * SIZE for _ in range(SIZE)]
        rows[SIZE - 1 - self.down][self.left] = "R"
        return "\n".join("".join(row) for row in rows)


class Observer:
    def __init__(self) -> None:
        self.tensor = np.zeros(SIZE * SIZE, np.float32)
        self.dict = {"observation": self.tensor.reshape(1, SIZE, SIZE)}

    def set_from(self, state: State, player: int) -> None:
        self.tensor.fill(0)
        self.dict["observation"][0, state.down, state.left] = 1

    def string_from(self, state: State, player: int) -> str:
        return str(state)


def register() -> None:
    pyspiel.register_game(GAME_TYPE, LameRook)


def transposed(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


SPEC = GameSpec(
    id="corner/lame_rook-v0",
    game="lame_rook",
    summary="Bring the rook into the corner",
    ply_limit=2 * (SIZE - 1),
    symmetries=(Symmetry("transpose", (3, 4, 5, 0, 1, 2), transposed),),
    register=register,
)
