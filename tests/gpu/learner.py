"""The learner's step on the device against the same steps on the CPU, its checkpoint, and its speed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import seconds_of, tf32
from nets import ACTIONS, SHAPE, TINY, config_of, positions
from report import Report, Skip, Wrong, bounded

from selfplay.contract import Symmetry
from selfplay.episode.rows import Rows
from selfplay.nets import NetConfig, weights
from selfplay.nets.inference import has_bfloat16
from trainers.alphazero.optimizer import Optimizer, OptimizerName
from trainers.alphazero.replay_window import ReplayWindow, WindowSettings, step_rng
from trainers.alphazero.training_step import (
    Averaged,
    average,
    check_finite,
    load_state,
    state_of,
    trainable,
    training_step,
)

STEPS, LR, DECAY, CLIP, EMA = 10, 2e-3, 1e-4, 5.0, 0.99
#: Largest difference of a loss among the ten to the CPU's in float32, as a share of it. Muon rounds to bfloat16.
BOUNDS = {"float32": 2e-3, "tf32": 1e-2, "bfloat16": 3e-2}
Batch = dict[str, torch.Tensor]


def main(report: Report, device: str, small: bool) -> None:
    """The check. small: sizes for seconds on a CPU."""
    config, batch = config_of(TINY if small else "64x5"), 32 if small else 512
    batches = sampled(config, batch, STEPS + 2)
    for optimizer in ("adamw", "muon"):
        truth: list[float] = []
        report.case(f"{optimizer} on the CPU in float32", on_cpu, config, batches, optimizer, truth)
        for dtype in ("float32", "tf32", "bfloat16"):
            name = f"{optimizer} {dtype}, ten steps against the CPU"
            report.case(name, against, config, batches, optimizer, dtype, device, truth)
        report.case(f"{optimizer} checkpoint goes on on the CPU", checkpoint, config, batches, optimizer, device)
    for size in (TINY,) if small else ("64x5", "256x20"):
        for rows in (32,) if small else (512, 4096):
            for dtype in ("float32", "bfloat16"):
                report.case(f"{size} speed, batch {rows} {dtype}", speed, size, rows, dtype, device)


def rows(count: int) -> Rows:
    """Positions with random targets, the same each time."""
    rng = np.random.default_rng(5)
    z, ones = rng.integers(-1, 2, count).astype(np.float32), np.ones(count, np.float32)
    return Rows(
        observations=positions(count, 7),
        offsets=np.arange(count + 1, dtype=np.int64) * ACTIONS,
        actions=np.tile(np.arange(ACTIONS, dtype=np.int32), count),
        targets=rng.dirichlet(np.full(ACTIONS, 0.3), count).astype(np.float32).reshape(-1),
        z=z,
        q=z * 0.8,
        policy_weight=ones,
        z_weight=ones * 0.5,
        q_weight=ones * 0.5,
    )


def window_of(count: int) -> ReplayWindow:
    mirror = Symmetry("mirror", tuple(reversed(range(ACTIONS))), lambda x: x[..., ::-1])
    window = ReplayWindow(SHAPE, ACTIONS, WindowSettings(), (mirror,))
    window.add(rows(count))
    return window


def sampled(config: NetConfig, batch: int, steps: int) -> list[Batch]:
    """What the learner samples for its first steps, on the CPU."""
    window = window_of(4 * batch)
    return [{n: torch.from_numpy(a) for n, a in window.sample(batch, step_rng(0, i, 0)).items()} for i in range(steps)]


class Learner:
    """Net, optimiser and averaged weights on a device; what RLlib's learner holds."""

    def __init__(self, config: NetConfig, optimizer: OptimizerName, device: str) -> None:
        self.device = device
        self.net = trainable(config, 0).to(device)
        self.optimizer = Optimizer(self.net, optimizer, LR, DECAY)
        self.averaged: Averaged = {name: value.clone() for name, value in self.net.state_dict().items()}

    def steps(self, batches: list[Batch], dtype: str, first: int = 0) -> list[float]:
        """Takes a step a batch; returns their losses."""
        losses = []
        with tf32(dtype == "tf32"):
            for i, batch in enumerate(batches, first):
                there = {name: value.to(self.device) for name, value in batch.items()}
                report = training_step(self.net, self.optimizer, there, dtype == "bfloat16", CLIP)
                average(self.averaged, self.net, i, EMA)
                losses.append(report["loss"])
        check_finite(self.net)
        return [float(loss) for loss in losses]


def on_cpu(config: NetConfig, batches: list[Batch], optimizer: OptimizerName, truth: list[float]) -> dict[str, Any]:
    truth += Learner(config, optimizer, "cpu").steps(batches[:STEPS], "float32")
    if not truth[-1] < truth[0]:
        raise Wrong("the loss did not fall", first=truth[0], last=truth[-1])
    return {"first": truth[0], "last": truth[-1]}


def against(
    config: NetConfig, batches: list[Batch], optimizer: OptimizerName, dtype: str, device: str, truth: list[float]
) -> dict[str, Any]:
    _refuse_missing(dtype, device)
    losses = Learner(config, optimizer, device).steps(batches[:STEPS], dtype)
    apart = [abs(a - b) / b for a, b in zip(losses, truth, strict=True)]
    numbers = {"first": apart[0], "worst": max(apart), "last_loss": losses[-1], "cpu_last_loss": truth[-1]}
    return bounded({"worst": BOUNDS[dtype]}, numbers)


def checkpoint(config: NetConfig, batches: list[Batch], optimizer: OptimizerName, device: str) -> dict[str, Any]:
    """What is saved on the device is loaded on the CPU to the bit, and both go on alike; back on the device, too."""
    there = Learner(config, optimizer, device)
    there.steps(batches[:STEPS], "float32")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "checkpoint.safetensors")
        saved = state_of(there.net, there.optimizer, there.averaged)
        weights.save(file, saved, {"kind": "learner", "net": config.to_json()})
        tensors, _ = weights.load(file)
    here, back = Learner(config, optimizer, "cpu"), Learner(config, optimizer, device)
    for one in (here, back):
        load_state(one.net, one.optimizer, one.averaged, tensors)
        loaded = state_of(one.net, one.optimizer, one.averaged)
        if loaded.keys() != saved.keys():
            raise Wrong(f"{sorted(loaded.keys() ^ saved.keys())[:3]} are saved or loaded, not both")
        changed = [name for name in saved if not np.array_equal(saved[name], loaded[name])]
        if changed:
            raise Wrong(f"{len(changed)} of {len(saved)} tensors changed on the way, {changed[0]} among them")
    on_device, on_cpu, again = (one.steps(batches[STEPS:], "float32", STEPS) for one in (there, here, back))
    numbers = {"next_steps": max(abs(a - b) / b for a, b in zip(on_device, on_cpu, strict=True))}
    numbers["restored_there"] = max(abs(a - b) / b for a, b in zip(on_device, again, strict=True))
    return bounded(dict.fromkeys(numbers, BOUNDS["float32"]), numbers) | {"tensors": len(saved)}


def speed(size: str, batch: int, dtype: str, device: str) -> dict[str, Any]:
    """Steps a second with and without the sampling and the copy, which the learner's process does in between.

    float32 as torch is set: TF32 in convolutions, where the device has it.
    """
    _refuse_missing(dtype, device)
    one, window = Learner(config_of(size), "adamw", device), window_of(2 * batch)
    on_cpu = {n: torch.from_numpy(a) for n, a in window.sample(batch, step_rng(0, 0, 0)).items()}
    there = {name: value.to(device) for name, value in on_cpu.items()}
    step = seconds_of(lambda: training_step(one.net, one.optimizer, there, dtype == "bfloat16", CLIP), device, 1.0)
    copy = seconds_of(lambda: [value.to(device) for value in on_cpu.values()], device, 0.2)
    began = time.perf_counter()
    for i in range(5):
        window.sample(batch, step_rng(0, i, 0))
    sample = (time.perf_counter() - began) / 5
    return {"step_ms": step * 1e3, "sample_ms": sample * 1e3, "copy_ms": copy * 1e3, "rows_per_s": batch / step}


def _refuse_missing(dtype: str, device: str) -> None:
    if dtype == "tf32" and (device == "cpu" or torch.cuda.get_device_capability() < (8, 0)):
        raise Skip("the device has no TF32")
    if dtype == "bfloat16" and device == "cuda" and not has_bfloat16(device):
        raise Skip("the device does not multiply in bfloat16")
