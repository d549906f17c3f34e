"""From a round of judged samples to what a step learns: rewards to advantages, by the algorithm of the run."""

from __future__ import annotations

import numpy as np

from trainers.reasoning.algorithms.grpo import Overlong, group_advantages, overlong
from trainers.reasoning.algorithms.judged import Judged, Look, Prepared
from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.policy_loss import PolicyLoss
from trainers.reasoning.token_batch import Lessons


def loss_of(settings: LearnerSettings, max_tokens: int) -> PolicyLoss:
    """The loss that the settings describe."""
    return PolicyLoss(
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        average=settings.average,
        constant=max_tokens if settings.average == "constant" else None,
        importance_cap=settings.importance_cap,
        kl_coef=settings.kl,
    )


def prepare(
    lessons: Lessons, settings: LearnerSettings, max_tokens: int, look: Look, baselines: SeatBaselines, seats: int
) -> Prepared:
    """Advantages of a round's lines, and which of them are learned from.

    Unverifiable samples (reward NaN) and groups whose rewards are all alike weigh nothing. With several seats each is
    compared with what that seat used to get (`baselines`, which move): a group's mean says nothing there.
    """
    raw = lessons.numbers["reward"]
    margin = max(1, max_tokens // 4)
    long = Overlong(settings.overlong, max_tokens, margin) if settings.overlong == "penalty" else None
    long = long or Overlong(settings.overlong)
    rewards, keep = overlong(raw, lessons.numbers["length"], lessons.numbers["cut"], long)
    groups = np.unique(lessons.names["group"], return_inverse=True)[1].astype(np.int64)
    compared = group_advantages(rewards, groups, settings.normalise)
    verified = ~np.isnan(raw)
    report = {
        "reward": float(raw[verified].mean()) if verified.any() else 0.0,
        "length": float(lessons.numbers["length"].mean()) if len(lessons) else 0.0,
        "mixed_groups": compared.mixed_share,
        "unverifiable": float(1 - verified.mean()) if len(lessons) else 0.0,
        "cut": float(lessons.numbers["cut"].mean()) if len(lessons) else 0.0,
    }
    ready = Lessons(lessons.ids, dict(lessons.tokens), dict(lessons.numbers), lessons.names)
    teach = ALGORITHMS[settings.algorithm].advantages
    assert teach is not None, f"{settings.algorithm} is not reinforcement learning"
    several = baselines if seats > 1 else None
    normalise, gamma, lam = settings.normalise, settings.gamma, settings.lam
    return teach(Judged(ready, rewards, keep, groups, normalise, gamma, lam, several, look, report))
