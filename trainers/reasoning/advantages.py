"""From a round of judged samples to what a step learns: rewards to advantages, by the algorithm of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainers.reasoning.algorithms.grpo import GroupAdvantages, Overlong, group_advantages, overlong
from trainers.reasoning.algorithms.ppo import gae, terminal, whitened
from trainers.reasoning.algorithms.rloo import leave_one_out
from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.policy_loss import PolicyLoss
from trainers.reasoning.token_batch import Lessons

Array = np.ndarray[Any, Any]
#: Log-probabilities and values of lessons by the policy as it is: name -> an array `[T]` a line.
Look = Callable[[Lessons], dict[str, list[Array]]]


@dataclass(frozen=True)
class Prepared:
    """What a round teaches. lessons: those that weigh something, with "advantage" or "advantages", and "weight".

    lines: of the round in all, filtered ones included. report: of the round, for people.
    """

    lessons: Lessons
    lines: int
    report: dict[str, float]


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
    if settings.algorithm == "ppo":
        return _by_value(ready, rewards, keep, settings, look, report)
    if seats > 1:
        advantages, weight = baselines.advantages(
            lessons.names["env"], lessons.numbers["seat"].tolist(), rewards
        )
        compared = GroupAdvantages(advantages, weight, compared.mixed_share)
    elif settings.algorithm == "rloo":
        compared = leave_one_out(rewards, groups)
    weight = compared.weight * keep
    ready.numbers |= {"advantage": compared.advantages, "weight": weight}
    return Prepared(ready.take(np.flatnonzero(weight > 0)), len(lessons), report)


def _by_value(
    lessons: Lessons, rewards: Array, keep: Array, settings: LearnerSettings, look: Look, report: dict[str, float]
) -> Prepared:
    """PPO: generalised advantages by the value head, standardised over the round."""
    lessons.numbers["weight"] = keep * ~np.isnan(rewards)
    lines, lessons = len(lessons), lessons.take(np.flatnonzero(lessons.numbers["weight"] > 0))
    if not len(lessons):
        return Prepared(lessons, lines, report)
    rewards = rewards[~np.isnan(rewards) & (keep > 0)]
    seen = look(lessons)
    mask, values = _padded(lessons.tokens["mask"]), _padded(seen["values"])
    given, _ = terminal(torch.from_numpy(rewards.astype(np.float32)), mask)
    advantages, returns = gae(given, values, mask, settings.gamma, settings.lam)
    errors = ((returns - values) ** 2)[mask]
    spread = returns[mask].var(unbiased=False) if bool(mask.any()) else torch.tensor(0.0)
    report["value_explained"] = float(1 - errors.mean() / spread) if float(spread) > 1e-6 else 0.0
    advantages = whitened(advantages, mask)
    sizes = [len(ids) for ids in lessons.ids]
    for name, tensor in (("advantages", advantages), ("returns", returns), ("values", values)):
        lessons.tokens[name] = [tensor[i, :size].float().numpy() for i, size in enumerate(sizes)]
    lessons.tokens["proximal"] = seen["logprobs"]
    return Prepared(lessons, lines, report)


def _padded(lines: list[Array]) -> torch.Tensor:
    out = np.zeros((len(lines), max(map(len, lines))), lines[0].dtype)
    for row, line in enumerate(lines):
        out[row, : len(line)] = line
    return torch.from_numpy(out)
