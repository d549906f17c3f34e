"""The AlphaZero loss (arXiv:1712.01815) for policies over legal actions and for values as outcomes or numbers.

Plain torch, no ray. Every term is a sum over rows divided by the number of rows, never by a sum of weights: so the
gradient of N equal shards, averaged, is the gradient of their union.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from selfplay.nets import value_of

Batch = dict[str, Tensor]


def losses(policy_logits: Tensor, value_logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, a scalar, and what to report of it.

    policy_logits: `[B, A]`; value_logits: `[B, 3]` (win, draw, loss of the seat to act) or `[B, 1]` before tanh.
    batch: as `ReplayWindow.sample` gives it, in tensors; `policy` `[B, A]` (sums to 1), `legal` `[B, A]` bool, `z`,
      `q`, `policy_weight`, `z_weight` and `q_weight` `[B]`; values from the point of view of the seat to act.
    Reported, detached: `policy_loss` and `value_loss` (means by weight), `entropy` of the policy, `policy_kl` =
      KL(target || policy), all in nats; `value_explained` = 1 - Var(z - v) / Var(z), at most 1.
    """
    policy_logits, value_logits = policy_logits.float(), value_logits.float()
    log_policy = log_softmax_legal(policy_logits, batch["legal"])
    target = batch["policy"]
    policy_rows = -(target * log_policy).sum(1)
    value_rows = value_losses(value_logits, batch)
    policy_weight, value_weight = batch["policy_weight"], batch["z_weight"] + batch["q_weight"]
    loss = (policy_weight * policy_rows + value_rows).mean()
    with torch.no_grad():
        by_policy = policy_weight.sum().clamp_min(1e-9)
        report = {
            "loss": loss.detach(),
            "policy_loss": (policy_weight * policy_rows).sum() / by_policy,
            "value_loss": value_rows.sum() / value_weight.sum().clamp_min(1e-9),
            "entropy": -(policy_weight * (log_policy.exp() * log_policy).sum(1)).sum() / by_policy,
            "value_explained": _explained(value_of(value_logits), batch["z"], batch["z_weight"]),
        }
        target_entropy = -torch.xlogy(target, target).sum(1)
        report["policy_kl"] = report["policy_loss"] - (policy_weight * target_entropy).sum() / by_policy
    return loss, report


def log_softmax_legal(logits: Tensor, legal: Tensor) -> Tensor:
    """`[B, A]` log-probabilities over the legal actions; 0 (not -inf) at illegal ones, so that products are finite."""
    logits = logits.masked_fill(~legal, float("-inf"))
    return torch.log_softmax(logits, 1).masked_fill(~legal, 0.0)


def value_losses(value_logits: Tensor, batch: Batch) -> Tensor:
    """`[B]`: z_weight * loss(z) + q_weight * loss(q); cross-entropy for outcomes, squared error for numbers.

    Either way the value that it is least for is the mean of z and q, by their weights.
    """
    z, q, z_weight, q_weight = batch["z"], batch["q"], batch["z_weight"], batch["q_weight"]
    if value_logits.shape[1] == 1:
        value = torch.tanh(value_logits[:, 0])
        weight = z_weight + q_weight
        mean = (z_weight * z + q_weight * q) / weight.clamp_min(1e-9)
        return weight * (value - mean) ** 2
    log_outcome = F.log_softmax(value_logits, 1)
    draw = log_outcome[:, 1].detach().exp()
    target = z_weight[:, None] * _reached(z, draw) + q_weight[:, None] * outcome_of(q, draw)
    return -(target * log_outcome).sum(1)


def _reached(z: Tensor, draw: Tensor) -> Tensor:
    """Win, draw and loss `[B, 3]` of results `z` `[B]`: certain where z is 1, 0 or -1; else with the expectation z.

    Some games have results in between, such as a margin of victory. draw: as for `outcome_of`.
    """
    certain = torch.stack([z > 0.5, z.abs() <= 0.5, z < -0.5], 1).to(draw.dtype)
    return torch.where(((z - z.round()).abs() < 1e-6)[:, None], certain, outcome_of(z, draw))


def outcome_of(q: Tensor, draw: Tensor) -> Tensor:
    """Win, draw and loss probabilities `[B, 3]` with expectation `q` `[B]` and, as far as that allows, draws `draw`.

    A search value says nothing of draws; `draw` is the net's own probability, clamped to 1 - |q|.
    """
    q = q.clamp(-1, 1)
    draw = torch.minimum(draw, 1 - q.abs())
    return torch.stack([(1 + q - draw) / 2, draw, (1 - q - draw) / 2], 1)


def _explained(value: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum().clamp_min(1e-9)

    def variance(x: Tensor) -> Tensor:
        return (weight * (x - (weight * x).sum() / total) ** 2).sum() / total

    return 1 - variance(z - value) / variance(z).clamp_min(1e-9)
