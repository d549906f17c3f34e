"""What a net says of positions, computed again, and how far from it an honest row may be.

Nets are played in float32, bfloat16 or int8, by several libraries, on processors that round differently. Bounds:

- *exact* arithmetic (float32 on a CPU; a dense net is float32 everywhere): `EXACT`, whatever the batch or the library.
  Runs that choose by themselves do not say what they chose; they were exact where nearly all numbers are as near as
  storage lets them be (`TIGHT`), and bfloat16 would have moved most of them twenty times as far.
- *reduced* arithmetic (bfloat16, int8, TF32): an honest number may differ from float32's as far as rounding moves the
  outputs of this very net. That is measured here: the positions are also evaluated in bfloat16, and a row may be
  `ROOM` times as far from float32 as the two are from each other at most, and at least `REDUCED`.

Measured on trained nets of tic-tac-toe and hex: OpenVINO's float32 and torch's are 5e-7 apart at most, bfloat16 and
float32 0.01, int8 and float32 0.018, up to 2.9 times as far as bfloat16. GPUs were not measured.

Both count in values of [-1, 1] and in probabilities, half a unit of storage (1.6e-5) included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selfplay.agent_file import net_of
from selfplay.errors import UserError
from selfplay.nets import weights
from selfplay.nets.config import NetConfig
from selfplay.nets.policy_value import FoldedNet, build, check_shapes, from_arrays, value_of

Array = np.ndarray[Any, Any]

EXACT = 1e-4
TIGHT = 2.5e-5
REDUCED = 0.05
ROOM = 8.0
_AT_ONCE = 512
#: Positions that show how far bfloat16 moves a net's numbers.
_ENOUGH = 64


@dataclass(frozen=True)
class Said:
    """What a net says of `N` positions. logits: `[N, A]`. values: `[N]` in [-1, 1], of the seat to act."""

    logits: Array
    values: Array


class Net:
    """One version of a policy-value net in float32, and in bfloat16 where that is asked for."""

    def __init__(self, config: NetConfig, tensors: weights.Tensors) -> None:
        """Raises `UserError` where these are not the weights of such a net."""
        try:
            check_shapes(config, tensors)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.config, self._tensors = config, tensors
        self._folded: dict[torch.dtype, FoldedNet] = {}

    def say(self, x: Array, dtype: torch.dtype = torch.float32) -> Said:
        """x: `[N, *input_shape]` float32."""
        net = self._folded.get(dtype)
        if net is None:
            whole = build(self.config, 0)
            from_arrays(whole, self._tensors)
            net = self._folded[dtype] = FoldedNet(whole.eval().requires_grad_(False), dtype).eval()
        parts = []
        with torch.inference_mode():
            for first in range(0, len(x), _AT_ONCE):
                logits, values = net(torch.from_numpy(x[first : first + _AT_ONCE]))
                parts.append((logits.float(), value_of(values)))
        return Said(torch.cat([one for one, _ in parts]).numpy(), torch.cat([one for _, one in parts]).numpy())

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """As a search asks; in float32."""
        said = self.say(x)
        return said.logits, said.values


def net_from(row: Mapping[str, Any] | None, tensors: weights.Tensors) -> Net:
    """The net of a row of the table `policies`. Raises `UserError` where it describes none, or another."""
    if row is None:
        raise UserError("the table of policies does not have its policy")
    return Net(net_of(row["net"] or "", "its row in the table of policies"), tensors)


def exact(config: NetConfig, settings: Mapping[str, Any] | None) -> bool:
    """Whether the net was played in exact arithmetic. settings: of the run, None: unknown."""
    if not config.resnet:
        return True
    played = (settings or {}).get("selfplay") or {}
    return played.get("dtype") == "float32" and played.get("device") == "cpu"


def priors(logits: Array, actions: Array) -> Array:
    """`[K]` float64: probabilities of the legal `actions` `[K]`, of logits `[A]`."""
    chosen = logits[actions].astype(np.float64)
    parts = np.exp(chosen - chosen.max())
    out: Array = parts / parts.sum()
    return out


@dataclass(frozen=True)
class Apart:
    """How far recorded numbers of `N` decisions are from recomputed ones, and how far they may be.

    value, prior: `[N]`, the largest of a decision. value_bound, prior_bound: of all. said: the float32 values `[N]`.
    exact: whether the arithmetic was exact.
    """

    value: Array
    prior: Array
    value_bound: float
    prior_bound: float
    said: Array
    exact: bool

    @property
    def wrong(self) -> Array:
        """`[N]` bool; also where something is not a number."""
        out: Array = ~((self.value <= self.value_bound) & (self.prior <= self.prior_bound))
        return out


def compare(
    net: Net,
    x: Array,
    actions: Sequence[Array],
    value: Array,
    prior: Sequence[Array],
    exactly: bool,
    sure: Array | None = None,
) -> Apart:
    """x: `[N, *input_shape]`. actions, prior: of each decision its legal actions and recorded priors, `[K]`.

    value: `[N]` recorded raw values in [-1, 1]. exactly: whether it is known that the arithmetic was exact. sure: `[N]`
    bool, decisions that are of these weights if they are honest; None: all.
    """
    said = net.say(x)
    again = [priors(logits, legal) for logits, legal in zip(said.logits, actions, strict=True)]
    values, shares = np.abs(said.values - value), _largest(again, prior)
    if exactly:
        return Apart(values, shares, EXACT, EXACT, said.values, True)
    some = slice(0, _ENOUGH)
    value_moved, prior_moved = _moved(net, x[some], actions[some], said.values[some], again[some])
    near = (values <= TIGHT) & (shares <= TIGHT)
    tight = float(np.mean(near if sure is None else near[sure])) if sure is None or sure.any() else 0.0
    if tight >= 0.9 and max(np.median(value_moved), np.median(prior_moved)) >= 20 * TIGHT:
        return Apart(values, shares, EXACT, EXACT, said.values, True)
    if ((values <= EXACT) & (shares <= EXACT)).all():
        return Apart(values, shares, EXACT, EXACT, said.values, False)
    value_moved, prior_moved = _moved(net, x, actions, said.values, again)
    value_bound = max(REDUCED, ROOM * float(value_moved.max()))
    prior_bound = max(REDUCED, ROOM * float(prior_moved.max()))
    return Apart(values, shares, value_bound, prior_bound, said.values, False)


def _moved(net: Net, x: Array, actions: Sequence[Array], values: Array, shares: Sequence[Array]) -> tuple[Array, Array]:
    """`[N]` each: how far bfloat16 moves values and priors from those in float32."""
    rough = net.say(x, torch.bfloat16)
    roughly = [priors(logits, legal) for logits, legal in zip(rough.logits, actions, strict=True)]
    return np.abs(rough.values - values), _largest(roughly, shares)


def _largest(some: Sequence[Array], others: Sequence[Array]) -> Array:
    return np.array([float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True)])
