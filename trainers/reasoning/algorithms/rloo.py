"""REINFORCE with the other answers to the same problem as the baseline: RLOO."""

from __future__ import annotations

import numpy as np

from trainers.reasoning.algorithms.grpo import GroupAdvantages, of_groups, weighed
from trainers.reasoning.algorithms.judged import Judged, Prepared


def leave_one_out(rewards: np.ndarray, groups: np.ndarray) -> GroupAdvantages:
    """Reward minus the mean of the others of its group (arXiv:2402.14740; Kool et al. 2019).

    rewards: `[B]` float64, of the seat that wrote the sample; NaN: unverifiable, in no mean and not trained on.
    groups: `[B]` int64, equal for answers to the same problem, in any order.
    The baseline does not depend on the sample, so the gradient is unbiased: G / (G - 1) times that of mean-only
    `grpo.group_advantages`. For that, lines must be averaged by a number that does not depend on what was sampled:
    average = "constant", with a `Size` that counts every line. A group of one has no baseline and weighs 0.
    """
    return of_groups(rewards, groups, _from_the_others)


def _from_the_others(verified: np.ndarray) -> np.ndarray:
    others = len(verified) - 1
    return verified - (verified.sum() - verified) / others


def advantages(judged: Judged) -> Prepared:
    """Each line against the others of its group; with several seats, each against what that seat used to get."""
    return weighed(judged, leave_one_out(judged.rewards, judged.groups))
