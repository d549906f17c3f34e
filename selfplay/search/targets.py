"""What a search teaches the policy, computed from what the archive keeps of it: visits, priors, q and the raw value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]


@njit(cache=True)
def gumbel_targets(
    offsets: Array, visits: Array, prior: Array, q: Array, raw_value: Array, c_visit: float, c_scale: float
) -> tuple[Array, Array]:
    """The improved policy and its value (Danihelka et al. 2022, section 4).

    The policy is pi' = softmax(log prior + sigma(completed Q)) over the legal actions; its value is the sum of
    pi' * completed Q. The mean of all values backed up would not do: sequential halving spends visits on losing moves.

    offsets: `[N + 1]` int64; decision d owns entries offsets[d] .. offsets[d + 1] - 1 of the flat arrays.
    visits: `[M]` int32. prior: `[M]` floats. q: `[M]` floats in [-1, 1], point of view of the seat to act, read only
    where visits > 0. raw_value: `[N]` floats in [-1, 1], likewise. Returns `[M]` float32, each decision
    summing to one, and `[N]` float32 in [-1, 1], point of view of the seat to act.
    """
    out = np.empty(len(prior), np.float32)
    values = np.empty(len(offsets) - 1, np.float32)
    for d in range(len(offsets) - 1):
        low, high = offsets[d], offsets[d + 1]
        most, total, seen, weighted = 0, 0, 0.0, 0.0
        for i in range(low, high):
            if visits[i] > 0:
                most = max(most, visits[i])
                total += visits[i]
                seen += prior[i]
                weighted += prior[i] * (q[i] + 1.0) * 0.5
        unvisited = (raw_value[d] + 1.0) * 0.5
        if total > 0 and seen > 0.0:
            unvisited = (unvisited + total * (weighted / seen)) / (1.0 + total)
        scale = (c_visit + most) * c_scale
        best = -math.inf
        for i in range(low, high):
            value = (q[i] + 1.0) * 0.5 if visits[i] > 0 else unvisited
            out[i] = math.log(max(prior[i], 1e-9)) + scale * value
            best = max(best, out[i])
        norm = 0.0
        for i in range(low, high):
            out[i] = math.exp(out[i] - best)
            norm += out[i]
        mean = 0.0
        for i in range(low, high):
            out[i] /= norm
            mean += out[i] * (q[i] if visits[i] > 0 else 2.0 * unvisited - 1.0)
        values[d] = mean
    return out, values


@njit(cache=True)
def visit_targets(offsets: Array, visits: Array, prior: Array) -> Array:
    """visits / sum of visits (Silver et al. 2018), the prior where nothing was visited; shapes as above."""
    out = np.empty(len(visits), np.float32)
    for d in range(len(offsets) - 1):
        low, high = offsets[d], offsets[d + 1]
        total = 0
        for i in range(low, high):
            total += visits[i]
        for i in range(low, high):
            out[i] = visits[i] / total if total > 0 else prior[i]
    return out


@njit(cache=True)
def policy_surprise(offsets: Array, target: Array, prior: Array) -> Array:
    """KL(target || prior) in nats of each decision (KataGo's policy surprise, arXiv:1902.10565 appendix B)."""
    out = np.zeros(len(offsets) - 1, np.float32)
    for d in range(len(offsets) - 1):
        total = 0.0
        for i in range(offsets[d], offsets[d + 1]):
            if target[i] > 0.0:
                total += target[i] * (math.log(target[i]) - math.log(max(prior[i], 1e-9)))
        out[d] = max(total, 0.0)
    return out
