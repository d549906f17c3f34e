"""What the surprise of a search may be, given the rounded numbers that the archive keeps of it.

Surprise is KL(policy target || prior), computed before priors and values were rounded to 1/32767. Every rounded number
stands for an interval, and so does what follows from them: bounds that hold whatever the rounding hid, by interval
arithmetic. They are a few 1e-4 wide where the priors are not tiny, and say little where all visits went to actions
whose priors were rounded to zero.

Searches are ragged: search d owns entries `first[d] : first[d + 1]` of the flat arrays (the last one the rest), one or
more. Stored numbers are int64 in units of 1/32767. slack: how far a stored number may be from the true one, in units.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selfplay.episode.schema import UNITS

Array = np.ndarray[Any, Any]

#: Priors and targets below this were taken for it when the logarithm of their ratio was.
_LEAST = 1e-9
#: p log(_LEAST / p) is at most this for p below it, and so is what taking `_LEAST` for p adds or leaves out.
_LEFT_OUT = _LEAST / np.e


def gumbel_surprise(
    first: Array, visits: Array, prior: Array, q: Array, raw_value: Array, c_visit: float, c_scale: float, slack: float
) -> tuple[Array, Array]:
    """`[D]` lowest and `[D]` highest surprise of Gumbel searches (target: `selfplay.episode.targets.gumbel_targets`).

    The target is t = p exp(s) / Z with Z = sum of p exp(s) and s = sigma(completed q), so that KL = sum of t s - log Z.
    """
    decision = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(visits))))
    visited = visits > 0
    total, most = np.add.reduceat(visits, first), np.maximum.reduceat(visits, first)
    low_p, high_p = np.maximum(prior - slack, 0.0) / UNITS, (prior + slack) / UNITS
    half, raw = (q / UNITS + 1.0) * 0.5, (raw_value / UNITS + 1.0) * 0.5
    error = slack / UNITS * 0.5  # of either
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low_v, high_v = _unvisited(first, decision, visited, prior / UNITS, low_p, half, raw, slack / UNITS)
        low_v = (raw - error + total * (low_v - error)) / (1.0 + total)
        high_v = (raw + error + total * (high_v + error)) / (1.0 + total)
        scale = ((c_visit + most) * c_scale)[decision]
        low_s = scale * np.where(visited, half - error, low_v[decision])
        high_s = scale * np.where(visited, half + error, high_v[decision])
        top = np.maximum.reduceat(high_s, first)
        low_x, high_x = low_s - top[decision], high_s - top[decision]  # at most 0
        low_w, high_w = np.exp(low_x), np.exp(high_x)
        low_z, high_z = np.add.reduceat(low_p * low_w, first), np.add.reduceat(high_p * high_w, first)
        # x exp(x) falls to -1/e at x = -1, and rises after.
        low_g, high_g = low_x * low_w, high_x * high_w
        least = np.where((low_x <= -1) & (high_x >= -1), -1 / np.e, np.minimum(low_g, high_g))
        lowest = np.add.reduceat(high_p * least, first) / low_z - np.log(high_z)
        highest = np.add.reduceat(low_p * np.maximum(low_g, high_g), first) / high_z - np.log(low_z)
        count = np.add.reduceat(np.ones(len(visits)), first)
        lowest -= count * _LEFT_OUT / low_z
        highest += count * _LEFT_OUT
    # Without a visit the target is the prior.
    return _within_float32(np.where(total > 0, lowest, 0.0), np.where(total > 0, highest, 0.0))


def _unvisited(
    first: Array, decision: Array, visited: Array, prior: Array, low_p: Array, half: Array, raw: Array, slack: float
) -> tuple[Array, Array]:
    """`[D]`, `[D]`: between what the prior-weighted mean value of the visited actions lies, priors being rounded.

    With true priors p and stored ones r the mean m is off by sum of (p - r)(v - m) / sum of p. If all priors of visited
    actions may have been zero, the value of the net alone took its place.
    """
    mass = np.where(visited, prior, 0.0)
    seen, low_seen = np.add.reduceat(mass, first), np.add.reduceat(np.where(visited, low_p, 0.0), first)
    least = np.minimum.reduceat(np.where(visited, half, 2.0), first)
    greatest = np.maximum.reduceat(np.where(visited, half, -2.0), first)
    mean = np.where(seen > 0, np.add.reduceat(np.where(visited, mass * half, 0.0), first) / seen, least)
    spread = np.add.reduceat(np.where(visited, np.abs(half - mean[decision]), 0.0), first)
    off = np.where(low_seen > 0, slack * spread / low_seen, np.inf)
    low, high = np.maximum(mean - off, least), np.minimum(mean + off, greatest)
    low, high = np.where(low_seen > 0, low, np.minimum(low, raw)), np.where(low_seen > 0, high, np.maximum(high, raw))
    some = greatest >= -1.0
    return np.where(some, low, raw), np.where(some, high, raw)


def visit_surprise(first: Array, visits: Array, prior: Array, slack: float) -> tuple[Array, Array]:
    """`[D]` lowest and `[D]` highest surprise of searches whose target is the share of visits (PUCT)."""
    counts = np.diff(np.append(first, len(visits)))
    total = np.add.reduceat(visits, first)
    share = visits / np.repeat(np.maximum(total, 1), counts)
    low_p = np.maximum((prior - slack) / UNITS, _LEAST)
    high_p = np.maximum((prior + slack) / UNITS, _LEAST)
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = np.add.reduceat(np.where(visits > 0, share * np.log(share / high_p), 0.0), first)
        highest = np.add.reduceat(np.where(visits > 0, share * np.log(share / low_p), 0.0), first)
    return _within_float32(lowest, highest)


def _within_float32(lowest: Array, highest: Array) -> tuple[Array, Array]:
    """Surprise was summed in float32, from ratios of float32 numbers, and is never stored below 0.

    A logarithm is off by some 2**-22 of itself and of 1, and logarithms of what is 1e-9 and above are below 21.
    """
    slack = 21 * 2.0**-21
    with np.errstate(invalid="ignore"):
        high = np.fmax(highest, 0.0)
        return np.fmax(lowest, 0.0) - slack, np.where(np.isfinite(high), high * (1 + 2.0**-21), np.inf) + slack
