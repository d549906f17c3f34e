"""Which problems a run asks: levels by curriculum, seeds by cursor; the same again after a restart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfplay.actors.reasoner import Ask
from selfplay.errors import UserError
from selfplay.task import Posed, Task
from trainers.curriculum import Curriculum

#: Of the problems that may be learned from, one of so many is for development: measured on, not learned from.
DEVELOPMENT_OF = 20
_SEEDS_A_RUN = 10**9
_MISSES = 20_000


def for_development(posed: Posed) -> bool:
    """Whether a problem, not held out, is of the development split; its digest alone decides."""
    return not posed.held_out and int(posed.digest[8:16], 16) % DEVELOPMENT_OF == 0


class Problems:
    """Asks for problems of a task. cursors: level -> the seed from which the next is sought; JSON-able by text."""

    def __init__(self, task: Task, levels: Sequence[float], seed: int, cursors: dict[str, int]) -> None:
        self.task, self.levels, self._seed = task, [float(level) for level in levels], seed
        self.cursors = dict(cursors)
        self._side: dict[tuple[float, str], list[int]] = {}

    def next(self, level: float) -> int:
        """The seed of the next problem of a level to learn from; none is asked for twice, whatever happens."""
        key = f"{level:g}"
        seed = self.cursors.get(key, (self._seed + 1) * _SEEDS_A_RUN)
        for candidate in range(seed, seed + _MISSES):
            posed = self.task.pose(candidate, level)
            if not posed.held_out and not for_development(posed):
                self.cursors[key] = candidate + 1
                return candidate
        raise UserError(f"{self.task.spec.id} has no problems of difficulty {level:g} to learn from")

    def round(self, number: int, prompts: int, group: int, curriculum: Curriculum | None) -> list[Ask]:
        """The problems of a round, each with the probability of its level; even over levels without a curriculum."""
        rng = np.random.default_rng([self._seed, 4, number])
        asks = []
        for i in range(prompts):
            if curriculum is None:
                level, chance = self.levels[int(rng.integers(len(self.levels)))], 1.0 / len(self.levels)
            else:
                level, chance = curriculum.draw(rng)
            asks.append(Ask(self.next(level), level, f"r{number:06d}-{i:04d}", group, chance))
        return asks

    def worked(self, episodes: int, levels: Sequence[float], answer_only: float) -> list[Ask]:
        """Problems for the solver, level by level in turn."""
        rng = np.random.default_rng([self._seed, 3])
        bare = rng.random(episodes) < answer_only
        turn = [float(levels[i % len(levels)]) for i in range(episodes)]
        return [Ask(self.next(turn[i]), turn[i], f"w{i:06d}", bare=bool(bare[i])) for i in range(episodes)]

    def measured(self, version: int, side: str, levels: Sequence[float], problems: int) -> list[Ask]:
        """Problems to measure on, the same every time: "held_out" or "development"; as many of each level."""
        each = max(1, problems // max(1, len(levels)))
        asks = []
        for level in levels:
            for i, seed in enumerate(self._measured(float(level), side, each)):
                asks.append(Ask(seed, float(level), f"{side[0]}{version:06d}-{level:g}-{i:04d}"))
        return asks

    def _measured(self, level: float, side: str, wanted: int) -> list[int]:
        found = self._side.setdefault((level, side), [])
        if len(found) < wanted:
            found.clear()
            seen: set[str] = set()
            for seed in range(_MISSES * 4):
                posed = self.task.pose(seed, level)
                right = posed.held_out if side == "held_out" else for_development(posed)
                if right and posed.digest not in seen:
                    seen.add(posed.digest)
                    found.append(seed)
                    if len(found) == wanted:
                        break
            if not found:
                raise UserError(f"{self.task.spec.id} has no {side.replace('_', '-')} problems of difficulty {level:g}")
        return found[:wanted]
