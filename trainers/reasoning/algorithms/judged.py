"""A round of judged lines, and what an algorithm makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.token_batch import Lessons

Array = np.ndarray[Any, Any]
#: Log-probabilities and values of lines by the policy as it is: name -> an array `[T]` a line.
Look = Callable[[Lessons], dict[str, list[Array]]]


@dataclass(frozen=True)
class Judged:
    """N lines of a round.

    rewards: `[N]` float64, of the seat that wrote; NaN: unverifiable. keep: `[N]` in [0, 1], what a cut line weighs.
    groups: `[N]` int64, equal for answers to the same problem. normalise: whether advantages of a group are divided by
    their deviation. gamma, lam: of generalised advantages. baselines: of the seats, where the task has several: what
    each used to get; a group's mean says nothing there. look: see `Look`. report: of the round, for people; an
    algorithm may add to it.
    """

    lessons: Lessons
    rewards: Array
    keep: Array
    groups: Array
    normalise: bool
    gamma: float
    lam: float
    baselines: SeatBaselines | None
    look: Look
    report: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """What a round teaches. lessons: those that weigh something, with "advantage" or "advantages", and "weight".

    lines: of the round in all, filtered ones included. report: of the round, for people.
    """

    lessons: Lessons
    lines: int
    report: dict[str, float]
