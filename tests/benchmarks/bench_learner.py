"""What RLlib and the window cost over plain torch. Run: python tests/benchmarks/bench_learner.py --net 32x4

Both sides train the same net on the same rows, take turns in one process, and the smallest CPU time of each counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from selfplay.episode.rows import Rows
from selfplay.nets import NetConfig, build
from selfplay.nets.inference import has_bfloat16
from trainers.alphazero.learner import AlphaZeroLearner
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.loss import losses


def rows(count: int, config: NetConfig) -> Rows:
    rng = np.random.default_rng(0)
    z = rng.integers(-1, 2, count).astype(np.float32)
    ones = np.ones(count, np.float32)
    return Rows(
        observations=(rng.random((count, *config.input_shape)) < 0.3).astype(np.float32),
        offsets=np.arange(count + 1, dtype=np.int64) * config.num_actions,
        actions=np.tile(np.arange(config.num_actions, dtype=np.int32), count),
        targets=rng.dirichlet(np.ones(config.num_actions), count).astype(np.float32).reshape(-1),
        z=z,
        q=z * 0.5,
        policy_weight=ones,
        z_weight=ones * 0.5,
        q_weight=ones * 0.5,
    )


def plain_step(config: NetConfig, batch: dict[str, torch.Tensor], bf16: bool) -> Callable[[], None]:
    """A training step with nothing around it: forward, loss, backward, clipping, AdamW."""
    net = build(config, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    x = batch["observations"].contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            policy, value = net(x)
        loss, _ = losses(policy, value, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()

    return step


def measure(net: str, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds of CPU a step of plain torch and of the learner, its sampling apart, and the overhead in %."""
    channels, blocks = (int(n) for n in net.split("x"))
    config = NetConfig((3, 6, 7), 7, outcome=True, channels=channels, blocks=blocks)
    bf16 = has_bfloat16("cpu")
    learner = AlphaZeroLearner(config, LearnerSettings(batch=batch, threads=1, device="cpu"))
    learner.add(rows(20_000, config))
    learner.train(1)
    window = learner.local.window
    sample = {k: torch.from_numpy(v) for k, v in window.sample(batch, np.random.default_rng(0)).items()}
    step = plain_step(config, sample, bf16)
    step()
    best = {"plain_ms": 1e9, "learner_ms": 1e9, "sample_ms": 1e9}
    runs: dict[str, Callable[[], object]] = {
        "plain_ms": step,
        "learner_ms": lambda: learner.train(1),
        "sample_ms": lambda: window.sample(batch, np.random.default_rng(0)),
    }
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], (time.process_time() - began) * 1e3)
    best["overhead_percent"] = 100 * (best["learner_ms"] - best["sample_ms"] - best["plain_ms"]) / best["plain_ms"]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="32x4")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({k: round(v, 2) for k, v in measure(arguments.net, arguments.batch, arguments.rounds).items()}))


if __name__ == "__main__":
    main()
