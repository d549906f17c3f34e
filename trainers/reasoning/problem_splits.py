"""Which problems a run needs on which side of its task's split; said before anything is played where there are none.

A level of few questions may have none that is held out, or none for development, and a run would find that out when it
first measures: after a warm start, or when the frontier has come there.
"""

from __future__ import annotations

from collections.abc import Iterator

from selfplay.contract import TaskSpec
from selfplay.environments.task import Side, Task
from selfplay.errors import UserError
from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.problems import first_seed

_WAY_OUT = {
    "held_out": "set evaluation.difficulties to levels that have some",
    "development": "set evaluation.difficulties to levels that have some, or leave out evaluation.development and "
    "run.target",
    "frontier": "set expert.start above it, or task.difficulties to levels that have some",
    "training": "set task.difficulties, and warm.difficulties, to levels that have some",
}


def levels_of(config: ReasoningConfig, spec: TaskSpec) -> list[float]:
    """Of the problems to learn from. Raises `UserError` for one that the task does not have."""
    levels = [float(level) for level in (config.task.difficulties or spec.difficulties)]
    unknown = [level for level in levels if level not in spec.difficulties]
    if unknown:
        known = ", ".join(f"{level:g}" for level in spec.difficulties)
        raise UserError(f"{spec.id} has no difficulty {unknown[0]:g}; it has {known}")
    return levels


def frontier_of(config: ReasoningConfig, levels: list[float]) -> int:
    """Where the frontier of expert iteration begins: a place in `levels`. Raises `UserError` for none of them."""
    warm = config.warm.difficulties or levels
    above = [known for known in levels if known > max(warm)]
    start = config.expert.start if config.expert.start is not None else (above[0] if above else levels[-1])
    if start not in levels:
        raise UserError(f"expert.start = {start:g} is none of the task's difficulties")
    return levels.index(start)


def refuse_empty_sides(config: ReasoningConfig, task: Task) -> None:
    """Raises `UserError` for a level that has none of the problems that the run will ask for."""
    found = set[tuple[float, Side]]()
    for level, side, way_out in _needed(config, levels_of(config, task.spec)):
        if (level, side) in found:
            continue
        if first_seed(task, level, side) is None:
            hint = ", or add questions, or set ?held_out=1/4" if task.spec.id.startswith("jsonl/") else ""
            raise UserError(
                f"{task.spec.id} has no {side.replace('_', '-')} problems of difficulty {level:g} (one in "
                f"{task.spec.held_out_of} is held out); {_WAY_OUT[way_out]}{hint}"
            )
        found.add((level, side))


def _needed(config: ReasoningConfig, levels: list[float]) -> Iterator[tuple[float, Side, str]]:
    """(level, side, key of `_WAY_OUT`) of all problems that a run may ask for."""
    c = config
    for level in dict.fromkeys([*levels, *map(float, c.warm.difficulties if c.warm.episodes else ())]):
        yield level, "training", "training"
    measured = [float(level) for level in (c.evaluation.difficulties or levels)]
    for level in measured:
        yield level, "held_out", "held_out"
    if c.evaluation.development or c.run.target is not None:
        for level in measured:
            yield level, "development", "development"
    if ALGORITHMS[c.learner.algorithm].follows == "imitate":
        for level in levels[frontier_of(c, levels) :]:
            yield level, "development", "frontier"
