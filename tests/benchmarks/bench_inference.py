"""Inference: CPU time a position by net, dtype, batch and method. Run: python tests/benchmarks/bench_inference.py

Variants take turns in one process and the smallest CPU time of each counts, so that other jobs disturb ratios little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from selfplay.nets import Evaluator, NetConfig, build, to_arrays
from selfplay.nets.policy_value import FoldedNet


def direct(config: NetConfig, dtype: torch.dtype) -> Callable[[np.ndarray], object]:
    """The same net in torch (oneDNN's convolutions)."""
    net = FoldedNet(build(config, 0).eval(), dtype).eval()

    def run(x: np.ndarray) -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(x))

    return run


def int8(config: NetConfig) -> Evaluator:
    """With weights that know their largest activations, as after training."""
    evaluator, tensors = Evaluator(config, "int8", "cpu"), to_arrays(build(config, 0))
    tensors["peaks"][:] = 4
    evaluator.load(tensors)
    return evaluator


def measure(rounds: int, batches: list[int], nets: list[str], shape: tuple[int, ...]) -> dict[str, float]:
    """Microseconds of CPU a position, by "net batch variant"."""
    best: dict[str, float] = {}
    for name in nets:
        channels, blocks = (int(n) for n in name.split("x"))
        config = NetConfig(shape, 7, outcome=True, channels=channels, blocks=blocks)
        variants: dict[str, Callable[[np.ndarray], object]] = {
            "float32 torch": direct(config, torch.float32),
            "float32 evaluator": Evaluator(config, "float32", "cpu"),
            "bfloat16 torch": direct(config, torch.bfloat16),
            "bfloat16 evaluator": Evaluator(config, "bfloat16", "cpu"),
            "int8 evaluator": int8(config),
        }
        for batch in batches:
            x = (np.random.default_rng(0).random((batch, *shape)) < 0.3).astype(np.float32)
            for _ in range(rounds):
                for variant, run in variants.items():
                    began = time.process_time()
                    run(x)
                    spent = (time.process_time() - began) / batch * 1e6
                    key = f"{name} {batch:3} {variant}"
                    best[key] = min(best.get(key, spent), spent)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--nets", nargs="+", default=["32x4", "64x5"])
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 6, 7])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    best = measure(arguments.rounds, arguments.batches, arguments.nets, tuple(arguments.shape))
    for key, spent in best.items():
        print(f"{key:32} {spent:7.1f} us")
    print(json.dumps({key: round(spent, 1) for key, spent in best.items()}))


if __name__ == "__main__":
    main()
