"""A moving baseline for each seat of each environment: SPIRAL's role-conditioned advantages.

In a zero-sum game the mean over seats, or over games against itself, says nothing: what one wins the other loses. So
each seat is compared with what that seat used to get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class SeatBaselines:
    """Exponential moving averages of rewards, one for each (environment, seat), from 0 on (arXiv:2506.24119, RAE).

    decay: in [0, 1): the share of the old average that each new reward leaves.
    """

    def __init__(self, decay: float = 0.95) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self._decay = decay
        self._of: dict[tuple[str, int], float] = {}

    def advantages(
        self, envs: Sequence[str], seats: Sequence[int], rewards: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and weights `[B]` float64, from the point of view of the seat that wrote the sample.

        envs, seats: B environment ids and seats. rewards: `[B]` float64, of that seat; NaN: unverifiable, gets
        advantage 0 and weight 0 and moves nothing. In the order given, each is compared with the baseline as it stood
        and moves it only then: a baseline that contained the reward would scale the advantage by `decay`.
        """
        rewards = np.asarray(rewards, np.float64)
        if not len(envs) == len(seats) == len(rewards):
            raise ValueError(f"as many envs and seats as rewards, got {len(envs)}, {len(seats)}, {len(rewards)}")
        if np.isinf(rewards).any():
            raise ValueError("a reward must be finite, or NaN where the sample is unverifiable")
        advantages, weight = np.zeros_like(rewards), np.zeros_like(rewards)
        for i, (env, seat, reward) in enumerate(zip(envs, seats, rewards.tolist(), strict=True)):
            if np.isnan(reward):
                continue
            baseline = self._of.get((env, int(seat)), 0.0)
            advantages[i], weight[i] = reward - baseline, 1.0
            self._of[env, int(seat)] = self._decay * baseline + (1 - self._decay) * reward
        return advantages, weight

    def state(self) -> dict[str, Any]:
        """For a checkpoint: JSON holds it exactly."""
        rows = [{"env": env, "seat": seat, "baseline": value} for (env, seat), value in sorted(self._of.items())]
        return {"decay": self._decay, "baselines": rows}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SeatBaselines:
        """As it was when `state` was taken."""
        made = cls(state["decay"])
        made._of = {(row["env"], row["seat"]): row["baseline"] for row in state["baselines"]}
        return made
