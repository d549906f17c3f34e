"""In which arithmetic and memory layout a net is trained fastest on this machine: found by trying a few steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import torch

from selfplay.errors import UserError
from selfplay.nets import NetConfig
from selfplay.nets.inference import has_bfloat16
from trainers.alphazero.learner_settings import Layout, LearnerSettings
from trainers.alphazero.training_step import forward, trainable
from trainers.run.fastest import fastest, with_costs

#: About how long (s) one pass may take that is timed, and the rows of the pass that tells.
_PASS_S, _FEW = 0.05, 16


@dataclass(frozen=True)
class Training:
    """How the forward and backward pass are computed.

    us: microseconds a row for each way that was tried, by its name; empty where none was.
    """

    bf16: bool
    layout: Layout
    us: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """ "bfloat16" or "float32", and the layout where it is not the usual one."""
        return ("bfloat16" if self.bf16 else "float32") + _LAYOUTS[self.layout]

    def __str__(self) -> str:
        """ "float32, 178 µs a row (bfloat16 277)"."""
        return with_costs(self.name, self.us, "row")


_LAYOUTS: dict[Layout, str] = {"channels_last": "", "contiguous": ", channels first", "winograd": " by Winograd"}


def usual(settings: LearnerSettings, device: str) -> Training:
    """What the processor's own word suggests; the same each time."""
    bf16 = has_bfloat16(device) if settings.bf16 is None else settings.bf16
    _check(settings, device)
    return Training(bf16 and settings.layout != "winograd", settings.layout or "channels_last")


def measured(net: NetConfig, settings: LearnerSettings, device: str) -> Training:
    """The fastest way on this machine, of those that the settings leave open. Takes some tenths of a second."""
    _check(settings, device)
    reduced = [False, True] if settings.bf16 is None and has_bfloat16(device) else [bool(settings.bf16)]
    layouts: list[Layout] = [settings.layout or "channels_last"]
    if net.resnet and settings.layout is None:
        layouts = ["channels_last", "contiguous", "winograd"] if device == "cpu" else ["channels_last", "contiguous"]
    ways = [Training(bf16, layout) for bf16, layout in product(reduced, layouts) if not (bf16 and layout == "winograd")]
    if len(ways) == 1:
        return ways[0]
    passes = {way: _Pass(net, way, device) for way in ways}
    rows = min(max(1, settings.batch // max(1, settings.learners)), passes[ways[0]].rows(_PASS_S))
    return fastest(ways, lambda way: passes[way](rows), rows)


def _check(settings: LearnerSettings, device: str) -> None:
    if settings.layout == "winograd" and (settings.bf16 or device != "cpu"):
        raise UserError("learner.layout=winograd needs a CPU and float32; use learner.layout=auto")


class _Pass:
    """Forward and backward once, with weights of its own."""

    def __init__(self, net: NetConfig, way: Training, device: str) -> None:
        self._net, self._way, self._device = trainable(net, 0, way.layout).to(device), way, device
        self._shape = net.input_shape

    def __call__(self, rows: int) -> float:
        """Seconds."""
        x = torch.rand(rows, *self._shape, device=self._device).round()
        self._wait()
        began = time.perf_counter()
        policy, value = forward(self._net, x, self._way.bf16, self._way.layout)
        (torch.log_softmax(policy.float(), 1).mean() + value.float().square().mean()).backward()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def rows(self, seconds: float) -> int:
        """About how many rows take so long."""
        self(_FEW)
        return max(_FEW, int(_FEW * seconds / self(_FEW)))
