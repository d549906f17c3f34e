"""Which difficulty comes next: most often the one where success is as likely as failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Curriculum:
    """Draws difficulty levels in proportion to learnability p (1 - p), p the solve rate lately measured there.

    p (1 - p) is the variance of the reward, and so what a group of answers can teach (arXiv:2408.15099,
    arXiv:2502.12272): nothing where all, or none, are right.

    levels: the difficulties, all different. floor: in [0, 1], the share of all draws that is spread evenly over the
      levels, so that nothing mastered is forgotten and what was hopeless is tried again. decay: in (0, 1): each new
      reward leaves this share of the old ones' weight; the memory is about 1 / (1 - decay) rewards a level.
    A rate is measured as (solved + 1) / (judged + 2): a level not seen yet stands at 1/2, the most learnable of all.
    """

    def __init__(self, levels: Sequence[float], floor: float = 0.1, decay: float = 0.99) -> None:
        if not levels or len(set(levels)) != len(levels):
            raise ValueError(f"levels must be there and all different, got {list(levels)}")
        if not 0 <= floor <= 1 or not 0 < decay < 1:
            raise ValueError(f"floor must be in [0, 1] and decay in (0, 1), got {floor} and {decay}")
        self._floor, self._decay = floor, decay
        self._solved = dict.fromkeys((float(level) for level in levels), 0.0)
        self._judged = dict.fromkeys(self._solved, 0.0)

    def solve_rates(self) -> dict[float, float]:
        """The rate that each level is taken to have, in (0, 1)."""
        return {level: (self._solved[level] + 1) / (self._judged[level] + 2) for level in self._solved}

    def probabilities(self) -> dict[float, float]:
        """How likely each level is drawn, in the order of `levels`; they sum to 1."""
        learnable = {level: rate * (1 - rate) for level, rate in self.solve_rates().items()}
        total = sum(learnable.values())  # positive: no rate is 0 or 1
        even = self._floor / len(learnable)
        return {level: min(1.0, even + (1 - self._floor) * much / total) for level, much in learnable.items()}

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """A level and the probability it was drawn with; one number of `rng` is used."""
        point, chances = rng.random(), self.probabilities()
        reached = 0.0
        for level, chance in chances.items():
            reached += chance
            if point < reached:
                return level, chance
        return level, chance  # rounding left the sum below `point`

    def record(self, level: float, rewards: Sequence[float] | np.ndarray) -> None:
        """Counts rewards of samples at `level`, oldest first; only their order matters, not how many calls they take.

        rewards: in [0, 1], 1 solved, 0 not; NaN: unverifiable, not counted.
        """
        if level not in self._solved:
            raise ValueError(f"no level {level:g}; there are {', '.join(f'{known:g}' for known in self._solved)}")
        known = [float(reward) for reward in rewards if not np.isnan(reward)]
        if any(not 0 <= reward <= 1 for reward in known):
            raise ValueError(f"rewards must be in [0, 1], or NaN, got {min(known)} to {max(known)}")
        for reward in known:
            self._solved[level] = self._decay * self._solved[level] + reward
            self._judged[level] = self._decay * self._judged[level] + 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint: JSON holds it exactly."""
        rows = [{"level": n, "solved": self._solved[n], "judged": self._judged[n]} for n in self._solved]
        return {"floor": self._floor, "decay": self._decay, "levels": rows}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Curriculum:
        """As it was when `state` was taken."""
        made = cls([row["level"] for row in state["levels"]], state["floor"], state["decay"])
        made.recall(state)
        return made

    def recall(self, state: dict[str, Any]) -> None:
        """Takes the counts of the levels that this one has, too, out of another's `state`."""
        for row in state["levels"]:
            if row["level"] in self._solved:
                self._solved[row["level"]], self._judged[row["level"]] = row["solved"], row["judged"]
