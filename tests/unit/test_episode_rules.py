"""A changed rule in a Python game is noticed by replay, although every recorded action stays legal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyspiel

from selfplay.episode import Provenance, random_episode, replay_digest

PROVENANCE = Provenance("run", "counting-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")


def counting_game(short_name: str, most: int, prize: float = 1.0) -> pyspiel.Game:
    """Two seats add 1 … `most` in turn; who reaches 10 wins `prize`."""
    kind = pyspiel.GameType(
        short_name=short_name,
        long_name=short_name,
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
        provides_observation_tensor=False,
    )
    info = pyspiel.GameInfo(
        num_distinct_actions=5,
        max_chance_outcomes=0,
        num_players=2,
        min_utility=-prize,
        max_utility=prize,
        utility_sum=0.0,
        max_game_length=10,
    )

    class State(pyspiel.State):
        def __init__(self, game: pyspiel.Game) -> None:
            super().__init__(game)
            self.total, self.mover = 0, 0

        def current_player(self) -> int:
            return pyspiel.PlayerId.TERMINAL if self.total >= 10 else self.mover

        def _legal_actions(self, player: int) -> list[int]:
            return list(range(1, most + 1))

        def _apply_action(self, action: int) -> None:
            self.total += action
            self.mover = 1 - self.mover

        def is_terminal(self) -> bool:
            return self.total >= 10

        def returns(self) -> list[float]:
            if self.total < 10:
                return [0.0, 0.0]
            return [prize, -prize] if self.mover == 1 else [-prize, prize]

        def _action_to_string(self, player: int, action: int) -> str:
            return f"+{action}"

        def __str__(self) -> str:
            return str(self.total)

    class Game(pyspiel.Game):
        def __init__(self, params: Any = None) -> None:
            super().__init__(kind, info, params or {})

        def new_initial_state(self) -> State:
            return State(self)

    return Game()


def test_a_changed_rule_is_noticed() -> None:
    old = counting_game("counting", most=2)
    episode = random_episode(old, 3, PROVENANCE)
    assert episode.game is not None
    assert replay_digest(counting_game("counting", most=2), episode.game.steps) == episode.game.replay_digest
    assert replay_digest(counting_game("counting", most=3), episode.game.steps) != episode.game.replay_digest
    assert replay_digest(counting_game("counting", 2, prize=2.0), episode.game.steps) != episode.game.replay_digest
    assert np.isclose(sum(episode.returns or ()), 0.0)
