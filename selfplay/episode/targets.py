"""What a search teaches, computed from what the archive keeps of it: visits, priors, q and the raw value.

Decisions are ragged: decision d owns entries `offsets[d]:offsets[d + 1]` of the flat arrays, one or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def gumbel_targets(
    offsets: Array, visits: Array, prior: Array, q: Array, raw_value: Array, c_visit: float, c_scale: float
) -> tuple[Array, Array]:
    """The improved policy and its value (Danihelka et al. 2022, section 4).

    The policy is pi' = softmax(log prior + sigma(completed Q)) over the legal actions; its value is the sum of
    pi' * completed Q. The mean of all values backed up would not do: sequential halving spends visits on losing moves.

    offsets: `[N + 1]` int64. visits: `[M]` int32. prior: `[M]` floats. q: `[M]` floats in [-1, 1], point of view of the
    seat to act, read only where visits > 0. raw_value: `[N]` floats in [-1, 1], likewise.
    Returns `[M]` float32, each decision summing to one, and `[N]` float32 in [-1, 1], point of view of the seat to act.
    """
    if len(offsets) == 1:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    first, decision = offsets[:-1], np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    visited = visits > 0
    mass = np.where(visited, prior, 0.0)
    half = np.where(visited, (q + 1.0) * 0.5, 0.0)  # in [0, 1]
    total, seen = np.add.reduceat(visits, first), np.add.reduceat(mass, first)
    mean = np.add.reduceat(mass * half, first) / np.where(seen > 0.0, seen, 1.0)
    unvisited = (raw_value + 1.0) * 0.5
    unvisited = np.where((total > 0) & (seen > 0.0), (unvisited + total * mean) / (1.0 + total), unvisited)
    completed = np.where(visited, half, unvisited[decision])
    scale = (c_visit + np.maximum.reduceat(visits, first)) * c_scale
    score = np.log(np.maximum(prior, 1e-9)) + scale[decision] * completed
    share = np.exp(score - np.maximum.reduceat(score, first)[decision])
    share /= np.add.reduceat(share, first)[decision]
    value = np.add.reduceat(share * (2.0 * completed - 1.0), first)
    return share.astype(np.float32), value.astype(np.float32)


def visit_targets(offsets: Array, visits: Array, prior: Array) -> Array:
    """visits / sum of visits (Silver et al. 2018), the prior where nothing was visited; shapes as above."""
    if len(offsets) == 1:
        return np.empty(0, np.float32)
    total = np.repeat(np.add.reduceat(visits, offsets[:-1]), np.diff(offsets))
    share: Array = np.where(total > 0, visits / np.maximum(total, 1), prior).astype(np.float32)
    return share
