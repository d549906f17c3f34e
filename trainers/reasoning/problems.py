"""Which problems a run asks: levels by curriculum, seeds by cursor; the same again after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from selfplay.actors.reasoner import Ask
from selfplay.environments.task import Side, Task
from selfplay.errors import UserError

#: Gives a level and the probability that it was drawn with.
Draw = Callable[[np.random.Generator], tuple[float, float]]
_SEEDS_A_RUN = 10**9
_MISSES = 20_000
#: Seeds among which the problems to measure on are sought.
_MEASURED = 80_000


@dataclass(frozen=True)
class Found:
    """A group that the archive holds already. states: of its samples' verdicts, seat 0."""

    ask: Ask
    states: tuple[str, ...]


def first_seed(task: Task, level: float, side: Side) -> int | None:
    """The first seed of a level whose problem is on this side of the split; None where none is found."""
    return next((seed for seed in range(_MEASURED) if task.pose(seed, level).side == side), None)


class Problems:
    """Asks for problems of a task. cursors: level -> the seed from which the next is sought; JSON-able by text.

    found: groups of rounds that were archived by a former driver, by round and name; they are not asked for again.
    taken: (level, seed) pairs beyond the cursors that were asked for already.
    """

    def __init__(
        self,
        task: Task,
        levels: Sequence[float],
        seed: int,
        cursors: dict[str, int],
        found: dict[int, dict[str, Found]] | None = None,
        taken: Sequence[Sequence[float]] = (),
    ) -> None:
        self.task, self.levels, self._seed = task, [float(level) for level in levels], seed
        self.cursors = dict(cursors)
        self.found = found or {}
        self._taken = {(float(level), int(seed)) for level, seed in taken}
        self._taken |= {(one.ask.difficulty, one.ask.seed) for groups in self.found.values() for one in groups.values()}
        self._side: dict[tuple[float, Side], list[int]] = {}

    def next(self, level: float) -> int:
        """The seed of the next problem of a level to learn from; none is asked for twice, whatever happens."""
        key = f"{level:g}"
        seed = self.cursors.get(key, (self._seed + 1) * _SEEDS_A_RUN)
        for candidate in range(seed, seed + _MISSES):
            posed = self.task.pose(candidate, level)
            if posed.side == "training" and (level, candidate) not in self._taken:
                self.cursors[key] = candidate + 1
                return candidate
        raise UserError(f"{self.task.spec.id} has no problems of difficulty {level:g} to learn from")

    def state(self, flying: Sequence[Ask]) -> tuple[dict[str, int], list[list[float]]]:
        """Cursors, and what is taken beyond them, as before the asks that are under way: those are asked for again."""
        cursors = dict(self.cursors)
        for ask in flying:
            if (ask.difficulty, ask.seed) not in self._taken:
                key = f"{ask.difficulty:g}"
                cursors[key] = min(cursors[key], ask.seed)
        start = (self._seed + 1) * _SEEDS_A_RUN
        beyond = [(level, seed) for level, seed in self._taken if seed >= cursors.get(f"{level:g}", start)]
        return cursors, [[level, seed] for level, seed in sorted(beyond)]

    def round(self, number: int, prompts: int, group: int, draw: Draw) -> list[Ask]:
        """The problems of a round, each with the probability of its level. draw: gives a level and its probability."""
        rng = np.random.default_rng([self._seed, 4, number])
        found = self.found.get(number, {})
        asks = {name: one.ask for name, one in found.items()}
        for i in range(prompts):
            name, (level, chance) = f"r{number:06d}-{i:04d}", draw(rng)
            if name not in found:
                asks[name] = Ask(self.next(level), level, name, group, chance)
        return [asks[name] for name in sorted(asks)]

    def evenly(self, rng: np.random.Generator) -> tuple[float, float]:
        """A level, all alike, and its probability."""
        return self.levels[int(rng.integers(len(self.levels)))], 1.0 / len(self.levels)

    def worked(self, episodes: int, levels: Sequence[float], answer_only: float) -> list[Ask]:
        """Problems for the solver, level by level in turn: always the first that there are."""
        rng = np.random.default_rng([self._seed, 3])
        bare = rng.random(episodes) < answer_only
        turn = [float(levels[i % len(levels)]) for i in range(episodes)]
        later, self.cursors = self.cursors, {}
        asks = [Ask(self.next(turn[i]), turn[i], f"w{i:06d}", bare=bool(bare[i])) for i in range(episodes)]
        for key, seed in later.items():
            self.cursors[key] = max(seed, self.cursors.get(key, seed))
        return asks

    def measured(self, version: int, side: Side, levels: Sequence[float], problems: int) -> list[Ask]:
        """Problems of a side to measure on, the same every time; as many of each level."""
        each = max(1, problems // max(1, len(levels)))
        asks = []
        for level in levels:
            for i, seed in enumerate(self._measured(float(level), side, each)):
                asks.append(Ask(seed, float(level), f"{side[0]}{version:06d}-{level:g}-{i:04d}"))
        return asks

    def _measured(self, level: float, side: Side, wanted: int) -> list[int]:
        found = self._side.setdefault((level, side), [])
        if len(found) < wanted:
            found.clear()
            seen: set[str] = set()
            for seed in range(_MEASURED):
                posed = self.task.pose(seed, level)
                if posed.side == side and posed.digest not in seen:
                    seen.add(posed.digest)
                    found.append(seed)
                    if len(found) == wanted:
                        break
            if not found:
                hint = "; add questions, or set ?held_out=1/4" if self.task.spec.id.startswith("jsonl/") else ""
                raise UserError(
                    f"{self.task.spec.id} has no {side.replace('_', '-')} problems of difficulty {level:g}; "
                    f"one in {self.task.spec.held_out_of} is held out{hint}"
                )
        return found[:wanted]
