"""Imitation: the negative log-likelihood of tokens that are worth imitating, and where they are said to stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.reasoning.policy_loss import Average, Report, Size, check_average, size_of, token_weights, trained


def sft_loss(
    new: Tensor,
    mask: Tensor,
    weight: Tensor | None = None,
    average: Average = "token",
    constant: int | None = None,
    size: Size | None = None,
) -> tuple[Tensor, Report]:
    """The loss to minimise, a scalar in nats per token, and what to report of it.

    new: `[B, T]` float32, log-probs in nats, entry t that of token t given those before it; anything outside the mask.
    mask: `[B, T]` bool, the tokens to imitate. weight: `[B]`, at least 0, how much a line counts; None: all 1.
    average, constant: as in `policy_loss.PolicyLoss`. size: of the whole batch this is a part of; None: of this one.
    Reported, detached, adding up over micro-batches: `loss`, and `nll`, the mean over trained tokens by weight.
    """
    check_average(average, constant)
    if new.shape != mask.shape:
        raise ValueError(f"new must have the shape of the mask, {tuple(mask.shape)}, got {tuple(new.shape)}")
    size = size_of(mask, weight) if size is None else size
    mask = trained(mask, weight)
    terms = -new.masked_fill(~mask, 0.0)
    loss = (token_weights(mask, weight, average, constant, size, new.dtype) * terms).sum()
    with torch.no_grad():
        nll = (token_weights(mask, weight, "token", None, size, new.dtype) * terms).sum()
    return loss, {"loss": loss.detach(), "nll": nll}


def gapped(
    lengths: np.ndarray[Any, Any], most: int, context: int, rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    """Positions of the tokens of lines, `[T]` int64 each: rising from 0, below `context`, with random gaps.

    lengths: `[N]` tokens of each line, at most `context`. most: positions that may be left out before a token. Some
    lines have hardly a gap, so that positions without any are known, too. After randomised positional encodings, Ruoss
    et al. 2023 (arXiv:2305.16843, section 3), whose gaps are even.
    """
    lines = []
    for length in lengths.tolist():
        left_out = np.floor(rng.random(length) ** 2 * rng.random() * (most + 1)).astype(np.int64)
        left_out[:1] = 0
        room = context - length
        if left_out.sum() > room:
            left_out = left_out * room // left_out.sum()
        lines.append(np.arange(length) + left_out.cumsum())
    return lines
