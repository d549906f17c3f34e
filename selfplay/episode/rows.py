"""Training rows: what one decision of a self-play game teaches, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Rows:
    """N decisions; the policy is ragged, row i owns entries `offsets[i]:offsets[i + 1]` of `actions` and `targets`.

    observations: `[N, *input_shape]`, what the seat to act sees (float32, or uint8 where it holds only 0 and 1).
    offsets: `[N + 1]` int64, from 0 to M.
    actions: `[M]` int32, all legal actions of each decision.
    targets: `[M]` float32, the policy target; sums to 1 over each decision.
    z: `[N]` float32 in [-1, 1], the outcome from the point of view of the seat to act; without one z_weight is 0.
    q: `[N]` float32 in [-1, 1], the value of the improved policy (PUCT: the root value), same point of view; in games
      without an outcome, its mean with the game's last search value.
    policy_weight, z_weight, q_weight: `[N]` float32, 0 or more; how much each of the three counts.
    """

    observations: np.ndarray
    offsets: np.ndarray
    actions: np.ndarray
    targets: np.ndarray
    z: np.ndarray
    q: np.ndarray
    policy_weight: np.ndarray
    z_weight: np.ndarray
    q_weight: np.ndarray

    def __len__(self) -> int:
        return len(self.z)


def take(rows: Rows, index: np.ndarray) -> Rows:
    """The rows at `index` (`[K]` ints), in that order."""
    flat, offsets = ragged(rows.offsets[:-1][index], rows.offsets[1:][index])
    per_row = {f.name: getattr(rows, f.name)[index] for f in fields(Rows) if f.name not in RAGGED}
    return Rows(offsets=offsets, actions=rows.actions[flat], targets=rows.targets[flat], **per_row)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows of `parts`, one or more, in order."""
    counts = np.concatenate([np.diff(p.offsets) for p in parts])
    joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Rows) if f.name != "offsets"}
    return Rows(offsets=np.concatenate([[0], np.cumsum(counts)]), **joined)


def ragged(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flat positions of all entries `starts[i]:ends[i]`, `[M]`, and their offsets, `[K + 1]`; both int64."""
    lengths = ends - starts
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


#: The fields of `Rows` that have not one entry a row.
RAGGED = ("offsets", "actions", "targets")
