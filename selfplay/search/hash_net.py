"""A net that knows nothing and costs next to nothing: for tests, and for timing a search without a net.

Its answer is a pure function of the input's bytes, so two searches that ask about the same states get the same answers
in whatever order and company they ask.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class HashNet:
    """Logits and values drawn from SHAKE-256 of an input's float32 bytes.

    num_actions: A, the number of the game's actions.
    logit_range: logits are uniform in [-logit_range, logit_range).
    value_range: values are uniform in [-value_range, value_range).
    salt: another salt is another net.

    Where both ranges are powers of two, every number is a 24-bit fraction, so float32 holds it exactly and a search in
    float32 is told the same as one in float64. Zeros of either sign count as the same input.
    """

    num_actions: int
    logit_range: float = 2.0
    value_range: float = 1.0
    salt: int = 0

    def __call__(self, batch: Array) -> tuple[Array, Array]:
        """Inputs `[B, *shape]` float32 -> logits `[B, A]` float64, values `[B]` float64 (seat to act)."""
        size = 4 * (self.num_actions + 1)
        prefix = self.salt.to_bytes(8, "little")
        rows = np.ascontiguousarray(batch, np.float32) + np.float32(0.0)  # -0.0 + 0.0 is 0.0
        digests = b"".join(hashlib.shake_256(prefix + row.tobytes()).digest(size) for row in rows)
        numbers = np.frombuffer(digests, "<u4").reshape(len(rows), self.num_actions + 1)
        unit = (numbers >> 8) / 2.0**23 - 1.0
        return unit[:, 1:] * self.logit_range, unit[:, 0] * self.value_range
