"""Sequential halving as a schedule of visit counts (Danihelka et al. 2022, section 3.3; Karnin et al. 2013).

At simulation t the root visits, among the actions whose visit count equals `schedule[t]`, the one that scores best;
so the survivors of each phase are visited evenly and the others are left alone.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np


@functools.cache
def considered_visits(considered: int, simulations: int) -> np.ndarray[Any, Any]:
    """`[simulations]` int32: the visit count that the action of each simulation must have.

    considered: how many actions the first phase visits, at least 1 and at most the number of legal ones.
    """
    sequence: list[int] = []
    if considered <= 1:
        sequence = list(range(simulations))
    else:
        phases = math.ceil(math.log2(considered))
        visits = [0] * considered
        survivors = considered
        while len(sequence) < simulations:
            rounds = max(1, simulations // (phases * survivors))
            for _ in range(rounds):
                sequence.extend(visits[:survivors])
                for i in range(survivors):
                    visits[i] += 1
            survivors = max(2, survivors // 2)
    out = np.asarray(sequence[:simulations], np.int32)
    out.setflags(write=False)
    return out
