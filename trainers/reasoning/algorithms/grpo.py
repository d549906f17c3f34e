"""Advantages relative to the other answers to the same problem: GRPO, Dr. GRPO, and what DAPO does with cut answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainers.reasoning.algorithms.judged import Judged, Prepared

#: Verified rewards `[G]` of one group, not all alike -> their advantages `[G]`.
Relative = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GroupAdvantages:
    """What a batch of B samples teaches.

    advantages: `[B]` float64, reward units (or standard deviations, where normalised), from the point of view of the
      seat that wrote the sample; 0 where weight is 0.
    weight: `[B]` float64: 1, or 0 for a sample that stays in the archive and out of the loss: unverifiable, or of a
      group whose verified rewards are all alike (DAPO's dynamic sampling, arXiv:2503.14476 §3.2).
    mixed_share: of the groups with at least one verified sample those whose rewards differ; 0 where there is no group.
      Where it is near 0 the problems are too hard or too easy, and next to nothing is learned.
    """

    advantages: np.ndarray
    weight: np.ndarray
    mixed_share: float


def group_advantages(
    rewards: np.ndarray, groups: np.ndarray, normalise: bool = False, eps: float = 1e-6
) -> GroupAdvantages:
    """Reward minus the mean of its group.

    rewards: `[B]` float64, of the seat that wrote the sample; NaN: unverifiable, in no mean and not trained on.
    groups: `[B]` int64, equal for answers to the same problem, in any order.
    normalise: divided by the group's standard deviation (population) + eps: GRPO (arXiv:2402.03300 §4.1.2). Without
      it, Dr. GRPO (arXiv:2503.20783 §3.2): problems that are nearly always or never solved get no extra weight. The
      mean contains the sample itself, which scales the expected gradient by (G - 1) / G at G a group (see `rloo`).
    """

    def relative(verified: np.ndarray) -> np.ndarray:
        apart = verified - verified.mean()
        return apart / (verified.std() + eps) if normalise else apart

    return of_groups(rewards, groups, relative)


def of_groups(rewards: np.ndarray, groups: np.ndarray, relative: Relative) -> GroupAdvantages:
    """Advantages by `relative`, applied to each group whose verified rewards differ."""
    rewards, groups = np.asarray(rewards, np.float64), np.asarray(groups)
    if rewards.ndim != 1 or groups.shape != rewards.shape:
        raise ValueError(f"rewards and groups must be one number a sample, got shapes {rewards.shape}, {groups.shape}")
    if np.isinf(rewards).any():
        raise ValueError("a reward must be finite, or NaN where the sample is unverifiable")
    advantages, weight = np.zeros_like(rewards), np.zeros_like(rewards)
    judged = mixed = 0
    for group in np.unique(groups):
        of_group = np.flatnonzero((groups == group) & ~np.isnan(rewards))
        if not of_group.size:
            continue
        verified = rewards[of_group]
        judged += 1
        if verified.min() < verified.max():  # not std > 0: rounding gives equal rewards a tiny one
            mixed += 1
            advantages[of_group], weight[of_group] = relative(verified), 1.0
    return GroupAdvantages(advantages, weight, mixed / judged if judged else 0.0)


@dataclass(frozen=True)
class Overlong:
    """What becomes of samples that ran into the token limit (DAPO, arXiv:2503.14476 §3.4).

    how: "keep": nothing, the verdict stands; "mask": they are left out of the loss, for a good thought cut short is no
      bad thought (their rewards stay in the group's mean); "penalty": the longer, the less reward, from `margin` tokens
      before the limit on.
    limit: tokens that may be sampled. margin: tokens, 1 to limit; used by "penalty".
    """

    how: Literal["keep", "mask", "penalty"] = "keep"
    limit: int = 0
    margin: int = 0

    def __post_init__(self) -> None:
        if self.how not in ("keep", "mask", "penalty"):
            raise ValueError(f"how must be keep, mask or penalty, got {self.how!r}")
        if self.how == "penalty" and not 1 <= self.margin <= self.limit:
            raise ValueError(f"a penalty needs 1 <= margin <= limit tokens, got {self.margin} and {self.limit}")


def overlong(
    rewards: np.ndarray, lengths: np.ndarray, cut: np.ndarray, settings: Overlong
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards `[B]` to take advantages of, and `[B]` float64 by which to multiply the weights: 0 for what is masked.

    rewards: `[B]` float64, NaN stays NaN. lengths: `[B]` int64, sampled tokens. cut: `[B]` bool: ended by the token
    limit and not by itself. The penalty is added to the reward: 0 up to limit - margin tokens, then falling
    linearly to -1 at the limit (eq. 13).
    """
    rewards, lengths, cut = np.asarray(rewards, np.float64), np.asarray(lengths), np.asarray(cut, np.bool_)
    keep = np.ones_like(rewards)
    if settings.how == "mask":
        keep[cut] = 0.0
    elif settings.how == "penalty":
        rewards = rewards + np.clip((settings.limit - settings.margin - lengths) / settings.margin, -1.0, 0.0)
    return rewards, keep


def advantages(judged: Judged) -> Prepared:
    """Each line against the others of its group; with several seats, each against what that seat used to get."""
    return weighed(judged, group_advantages(judged.rewards, judged.groups, judged.normalise))


def weighed(judged: Judged, compared: GroupAdvantages) -> Prepared:
    """The lines that weigh something under these advantages, or, with several seats, under those of the seats."""
    lessons = judged.lessons
    if judged.baselines is not None:
        names, seats = lessons.names["env"], lessons.numbers["seat"].tolist()
        values, weights = judged.baselines.advantages(names, seats, judged.rewards)
        compared = GroupAdvantages(values, weights, compared.mixed_share)
    weight = compared.weight * judged.keep
    lessons.numbers |= {"advantage": compared.advantages, "weight": weight}
    return Prepared(lessons.take(np.flatnonzero(weight > 0)), len(lessons), judged.report)
