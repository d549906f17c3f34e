"""Advantages by a learned value (GAE) and the loss of that value: PPO over sampled tokens.

Plain torch. Time runs over the tokens that a seat sampled: the successor of a sampled token is the NEXT sampled token
of the same line, however much prompt, tool text or other seats' text stands between; a line is one seat's. Rewards and
values are that seat's, in reward units: the value at token t is what it expects before it samples t.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainers.reasoning.algorithms.judged import Array, Judged, Prepared
from trainers.reasoning.policy_loss import Average, Report, Size, check_average, size_of, token_weights, trained


def terminal(rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards `[B, T]` with a line's reward on its last sampled token, and the lines' weights `[B]`, 1 or 0.

    rewards: `[B]`, of a floating type, which the results have too, of the seat that wrote the line; NaN: unverifiable,
      the line gets reward 0 and weight 0. mask: `[B, T]` bool, the sampled tokens; a line without any weighs 0.
    """
    verified = ~rewards.isnan()
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return last * rewards.nan_to_num(0.0)[:, None], (verified & mask.any(1)).to(rewards.dtype)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Advantages and returns `[B, T]`, both without gradient and 0 outside the mask (arXiv:1506.02438 eq. 16).

    rewards: `[B, T]`, given after token t; must be 0 outside the mask. values: `[B, T]`, before token t; anything
      outside the mask. mask: `[B, T]` bool, the sampled tokens. After the last of them nothing is to come: its
      bootstrap value is 0. gamma, lam: in [0, 1], per sampled token. returns = advantages + values: the target of the
      value, with lam = 1 the discounted sum of the rewards to come.
    """
    if not (0 <= gamma <= 1 and 0 <= lam <= 1):
        raise ValueError(f"gamma and lam must be in [0, 1], got {gamma} and {lam}")
    if bool((rewards.masked_fill(mask, 0.0) != 0).any()):
        raise ValueError("a reward stands at a token that was not sampled: put it on the sampled token before it")
    rewards, values = rewards.detach(), values.detach().masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    next_advantage = next_value = values.new_zeros(len(values))
    for t in reversed(range(mask.shape[1])):
        here = mask[:, t]
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(here, surprise + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = next_advantage.masked_fill(~here, 0.0)
    return advantages, advantages + values


def whitened(advantages: Tensor, mask: Tensor, weight: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """`[B, T]` with mean 0 and standard deviation 1 (population, by weight) over trained tokens; 0 elsewhere.

    An option of PPO, for a whole batch before it is split, never for a micro-batch. weight: `[B]`; None: all 1.
    """
    mask = trained(mask, weight)
    share = token_weights(mask, weight, "token", None, size_of(mask, weight), advantages.dtype)
    advantages = advantages.masked_fill(~mask, 0.0)
    apart = (advantages - (share * advantages).sum()).masked_fill(~mask, 0.0)
    return apart / ((share * apart**2).sum().sqrt() + eps)


def value_loss(
    new: Tensor,
    old: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None = 0.2,
    weight: Tensor | None = None,
    average: Average = "token",
    constant: int | None = None,
    size: Size | None = None,
) -> tuple[Tensor, Report]:
    """Half the squared error of the values, a scalar to minimise, and what to report of it.

    new: `[B, T]`, values with gradient. old: `[B, T]`, those that `gae` was given. returns: `[B, T]`, constants. All
      before token t, reward units, of the seat that wrote the line, anything outside the mask `[B, T]` bool.
    clip: the greater error counts of the value's own and that of the value kept within ±clip, reward units, of `old`
      (the clipped value loss of PPO's reference implementation, arXiv:2006.05990); None: its own.
    weight, average, constant, size: as in `policy_loss.policy_loss` and its settings.
    Reported, detached, adding up over micro-batches: `value_loss`; the means over trained tokens by weight
    `value_error` (squared, unclipped) and `value_clip_share` (tokens without gradient because of the clip).
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None, got {clip}")
    check_average(average, constant)
    size = size_of(mask, weight) if size is None else size
    mask = trained(mask, weight)
    new, old, returns = (x.masked_fill(~mask, 0.0) for x in (new, old.detach(), returns.detach()))
    errors = (new - returns) ** 2
    terms = errors
    if clip is not None:
        terms = torch.maximum(errors, (old + (new - old).clamp(-clip, clip) - returns) ** 2)
    loss = 0.5 * (token_weights(mask, weight, average, constant, size, new.dtype) * terms).sum()
    with torch.no_grad():
        share = token_weights(mask, weight, "token", None, size, new.dtype)
        report = {
            "value_loss": loss.detach(),
            "value_error": (share * errors).sum(),
            "value_clip_share": (share * (terms > errors)).sum(),
        }
    return loss, report


def advantages(judged: Judged) -> Prepared:
    """Generalised advantages by the value head, standardised over the round."""
    lessons, rewards, keep, report = judged.lessons, judged.rewards, judged.keep, judged.report
    lessons.numbers["weight"] = keep * ~np.isnan(rewards)
    lines, lessons = len(lessons), lessons.take(np.flatnonzero(lessons.numbers["weight"] > 0))
    if not len(lessons):
        return Prepared(lessons, lines, report)
    rewards = rewards[~np.isnan(rewards) & (keep > 0)]
    seen = judged.look(lessons)
    mask, values = _padded(lessons.tokens["mask"]), _padded(seen["values"])
    given, _ = terminal(torch.from_numpy(rewards.astype(np.float32)), mask)
    advantage, returns = gae(given, values, mask, judged.gamma, judged.lam)
    errors = ((returns - values) ** 2)[mask]
    spread = returns[mask].var(unbiased=False) if bool(mask.any()) else torch.tensor(0.0)
    report["value_explained"] = float(1 - errors.mean() / spread) if float(spread) > 1e-6 else 0.0
    advantage = whitened(advantage, mask)
    sizes = [len(ids) for ids in lessons.ids]
    for name, tensor in (("advantages", advantage), ("returns", returns), ("values", values)):
        lessons.tokens[name] = [tensor[i, :size].float().numpy() for i, size in enumerate(sizes)]
    lessons.tokens["proximal"] = seen["logprobs"]
    return Prepared(lessons, lines, report)


def _padded(lines: list[Array]) -> torch.Tensor:
    out = np.zeros((len(lines), max(map(len, lines))), lines[0].dtype)
    for row, line in enumerate(lines):
        out[row, : len(line)] = line
    return torch.from_numpy(out)
