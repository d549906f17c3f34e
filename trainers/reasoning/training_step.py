"""The forward pass and the optimiser of a language model's training step: plain torch, without ray.

`trainers.reasoning.rllib_module` builds RLlib's learner of these functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from selfplay.nets.language import LanguagePolicy
from selfplay.rollout.sampling import Sampling, sampled_logprobs


def forward(policy: LanguagePolicy, batch: Mapping[str, Tensor], sampling: Sampling, bf16: bool) -> dict[str, Any]:
    """What the policy says of lines of tokens, with gradient.

    batch: `ids` `[B, T]`, `mask` `[B, T]` bool, the tokens that were drawn, and, if there, `positions` `[B, T]`. bf16:
    products in bfloat16.
    Returns log-probabilities `logprobs` `[B, T]` (nats) of the tokens of `mask`, 0 elsewhere, as drawn by `sampling`;
    their mean `entropy` (nats, no gradient); with a value head `values` `[B, T]`: the return expected before the token.
    """
    ids, mask = batch["ids"], batch["mask"]
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=bf16):
        placed = {"positions": batch["positions"]} if "positions" in batch else {}
        hidden = policy.model.hidden(ids, **placed)
        rows, places = mask[:, 1:].nonzero(as_tuple=True)  # token t is drawn from the state at t - 1
        before = hidden[rows, places]
        logits = policy.model.logits(before).float()
    drawn = sampled_logprobs(logits, ids[rows, places + 1], sampling)
    out: dict[str, Any] = {"logprobs": _spread(drawn, mask, rows, places)}
    with torch.no_grad():
        logp = torch.log_softmax(logits, -1)
        out["entropy"] = -(logp.exp() * logp).sum(-1).mean() if len(rows) else logits.sum()
    if policy.value_head is not None:
        out["values"] = _spread(policy.values(before), mask, rows, places)
    return out


def adamw(parameters: Iterable[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) of those that are trained; matrices decay, vectors do not."""
    params = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))


def _spread(values: Tensor, mask: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """`[B, T]` with the values of tokens `(rows, places + 1)`, 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=mask.device).index_put((rows, places + 1), values)
