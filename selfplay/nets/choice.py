"""How a net is evaluated fastest on this machine: found by trying.

What a processor says of itself tells that an instruction exists, not that it is fast: 8-bit products pay without any
instruction for them, and 16-bit ones may be slower than 32-bit ones in spite of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Positions `[B, *input_shape]` -> policy logits `[B, A]` and value logits `[B, 3 or 1]`, all float32.
Function = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

#: A less exact way must be faster than an exact one by this factor.
WORTH = 1.1
#: Mean KL divergence (nats) from the policy in float32 that is exact enough, far below the noise of any search.
EXACT_NATS = 1e-3
#: What has taken this many times as long as the fastest at first sight is not tried again.
_HOPELESS = 2.0
_ROUNDS = 5


@dataclass(frozen=True)
class Way:
    """method: the library, "openvino" or "torch". dtype: "float32", "bfloat16" or "int8"."""

    method: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} in {_LIBRARY[self.method]}"


@dataclass(frozen=True)
class Trial:
    """What a way costs: us, microseconds a position, in batches of `batch`, in one process beside the others."""

    way: Way
    us: float
    batch: int


@dataclass(frozen=True)
class Choice:
    """Which way was chosen, and the trials that decided it, fastest first; none where it was told, or the only one."""

    device: str
    way: Way
    trials: tuple[Trial, ...] = ()

    def __str__(self) -> str:
        """ "int8 in OpenVINO, 42 µs a position (float32 in OpenVINO 74, float32 in torch 109)"."""
        mine = [trial for trial in self.trials if trial.way == self.way]
        others = ", ".join(f"{trial.way} {trial.us:,.0f}" for trial in self.trials if trial.way != self.way)
        cost = f", {mine[0].us:,.0f} µs a position" if mine else ""
        return f"{self.way}{' on the GPU' if self.device == 'cuda' else ''}{cost}{f' ({others})' if others else ''}"


_LIBRARY = {"openvino": "OpenVINO", "torch": "torch"}


def measure(
    ways: Sequence[tuple[Way, Callable[[], Function]]], x: np.ndarray, clock: Callable[[], float] = time.perf_counter
) -> list[Trial]:
    """The cost of each way for a batch like `x` `[B, *input_shape]`, fastest first.

    ways: each with what makes its function. All take turns, so that what else happens on the machine meets all alike,
    and the best of some rounds counts.
    """
    functions = [(way, make()) for way, make in ways]
    best: dict[Way, float] = {}
    for _, function in functions:  # the first call of a batch size prepares what the next ones use
        function(x)
    for _ in range(_ROUNDS):
        fastest = min(best.values(), default=float("inf"))
        for way, function in functions:
            if best.get(way, 0.0) <= _HOPELESS * fastest:
                began = clock()
                function(x)
                best[way] = min(best.get(way, float("inf")), clock() - began)
    trials = [Trial(way, 1e6 * seconds / len(x), len(x)) for way, seconds in best.items()]
    return sorted(trials, key=lambda trial: trial.us)


def choose(trials: Sequence[Trial]) -> Way:
    """The fastest; of those that are about as fast, the most exact."""
    fastest = trials[0].us
    close = [trial for trial in trials if trial.us <= WORTH * fastest]
    return min(close, key=lambda trial: (_BITS[trial.way.dtype], trial.us)).way


_BITS = {"float32": 0, "bfloat16": 1, "int8": 2}


def divergence(logits: np.ndarray, reference: np.ndarray) -> float:
    """Mean KL divergence (nats) of the policies with these logits `[B, A]` from those of `reference`."""
    p, q = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return out
