"""Expert iteration: which verified samples to imitate, how much, and when to go on to harder problems.

STaR (arXiv:2203.14465), rejection-sampling fine-tuning (arXiv:2308.01825), more of the hard (arXiv:2407.13690).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One answer to a problem.

    problem: its digest. tokens: ids of the sampled text. reward: of the seat that wrote it; NaN: unverifiable.
    difficulty: of the problem.
    """

    problem: str
    tokens: tuple[int, ...]
    reward: float
    difficulty: float = 0


@dataclass(frozen=True)
class Kept:
    """A sample to imitate.

    weight: in (0, 1]. solve_rate: in (0, 1], the share accepted of the problem's judged samples, repetitions counted.
    """

    sample: Sample
    weight: float
    solve_rate: float


def keep(
    samples: Iterable[Sample], rng: np.random.Generator, cap: int = 4, accept: float = 1.0, floor: float = 0.1
) -> list[Kept]:
    """The verified, once each, at most `cap` a problem, the hard weighing more; by problem, then as chosen.

    accept: the least reward that counts as solved. A text that was once accepted and once rejected is not verified:
      left out (both verdicts count in the solve rate).
    cap: at least 1. Of more, the first is drawn by `rng`; each next has a length not taken yet, if there is one, and
      differs most from those taken: in the smallest number of places at which it differs from one of them; `rng`
      decides ties. The choice depends on the samples and on `rng`, not on the order in which samples come.
    floor: in (0, 1], the least weight; a sample weighs max(floor, 1 - solve rate).
    """
    if cap < 1 or not 0 < floor <= 1:
        raise ValueError(f"cap must be at least 1 and floor in (0, 1], got {cap} and {floor}")
    verdicts: dict[str, dict[tuple[int, ...], list[Sample]]] = {}
    for sample in samples:
        if not np.isnan(sample.reward):
            verdicts.setdefault(sample.problem, {}).setdefault(sample.tokens, []).append(sample)
    kept = []
    for _, texts in sorted(verdicts.items()):
        judged = [sample.reward >= accept for same in texts.values() for sample in same]
        rate = sum(judged) / len(judged)
        verified = [
            max(same, key=lambda sample: (sample.reward, sample.difficulty))
            for _, same in sorted(texts.items())
            if all(sample.reward >= accept for sample in same)
        ]
        kept += [Kept(sample, max(floor, 1 - rate), rate) for sample in _unlike(verified, cap, rng)]
    return kept


def _unlike(samples: Sequence[Sample], cap: int, rng: np.random.Generator) -> list[Sample]:
    if len(samples) <= cap:
        return list(samples)
    left = [samples[i] for i in rng.permutation(len(samples))]
    taken = [left.pop(0)]
    nearest = [_places(sample, taken[0]) for sample in left]
    while len(taken) < cap:
        lengths = {len(sample.tokens) for sample in taken}
        best = max(range(len(left)), key=lambda i: (len(left[i].tokens) not in lengths, nearest[i]))
        taken.append(left.pop(best))
        nearest.pop(best)
        nearest = [min(known, _places(sample, taken[-1])) for known, sample in zip(nearest, left, strict=True)]
    return taken


def _places(one: Sample, other: Sample) -> int:
    """Positions at which two texts differ; those that only one of them has differ."""
    same = sum(a == b for a, b in zip(one.tokens, other.tokens, strict=False))
    return max(len(one.tokens), len(other.tokens)) - same


@dataclass(frozen=True)
class Gate:
    """Keeps problems at a difficulty until it is mastered: without it self-made data get worse round by round.

    level: the difficulty now. highest: where it ends. threshold: the solve rate, in (0, 1], on problems of `level` of a
    development split, never trained on, from which on the next level opens. least: judged samples without which no
    rate counts.
    """

    level: int
    highest: int
    threshold: float = 0.95
    least: int = 100

    def __post_init__(self) -> None:
        if self.level > self.highest or not 0 < self.threshold <= 1 or self.least < 1:
            raise ValueError(f"level <= highest, 0 < threshold <= 1 and least >= 1 are needed, got {self}")

    def after(self, rewards: Sequence[float] | np.ndarray, accept: float = 1.0) -> Gate:
        """The gate after an examination at `level` by one version of the policy: this one, or one level up.

        rewards: of the development split's samples; NaN: unverifiable, not counted. accept: as for `keep`.
        """
        known = np.asarray(rewards, np.float64)
        known = known[~np.isnan(known)]
        passed = len(known) >= self.least and float(np.mean(known >= accept)) >= self.threshold
        return replace(self, level=min(self.level + 1, self.highest)) if passed else self

    def state(self) -> dict[str, Any]:
        """For a checkpoint: JSON holds it exactly; `Gate.from_state` gives it back."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Gate:
        """As it was when `state` was taken."""
        return cls(state["level"], state["highest"], state["threshold"], state["least"])
