"""Nets and positions for the checks: nets that have an opinion, which fresh ones have not."""

from __future__ import annotations

import numpy as np
import torch

from selfplay.nets import NetConfig, build, to_arrays
from selfplay.nets.policy_value import PolicyValueNet

Arrays = dict[str, np.ndarray]
#: Of the observation of connect four, and its actions.
SHAPE, ACTIONS = (3, 6, 7), 7
SIZES = ("32x4", "64x5", "128x10", "256x20")
#: For a rehearsal.
TINY = "16x2"


def config_of(size: str) -> NetConfig:
    """The shape of a net for connect four. size: channels x blocks."""
    channels, blocks = (int(n) for n in size.split("x"))
    return NetConfig(SHAPE, ACTIONS, outcome=True, channels=channels, blocks=blocks)


def positions(count: int, seed: int = 0) -> np.ndarray:
    """`[count, *SHAPE]` float32: each cell is one's own, the other's, or empty, as in connect four."""
    owner = np.random.default_rng(seed).choice(3, (count, 1, *SHAPE[1:]), p=(0.2, 0.2, 0.6))
    return (owner == np.arange(3)[:, None, None]).astype(np.float32)


def opinionated(config: NetConfig, device: str, seed: int = 0) -> Arrays:
    """Weights of a net whose statistics fit its activations, and whose logits are some units apart.

    A fresh net says the same of every position: rounding would not show.
    """
    net = build(config, seed).to(device)
    count, passes = (256, 40) if device == "cuda" else (48, 25)
    x = torch.from_numpy(positions(count, seed + 1)).to(device)
    with torch.no_grad():
        net.train()
        for _ in range(passes):
            net(x)
        net.eval()
        policy, value = net(x)
        net.policy.weight.mul_(1.5 / policy.std(0).mean())
        net.value.weight.mul_(1.5 / value.std(0).mean())
    return to_arrays(net)


def flops(net: PolicyValueNet) -> int:
    """Floating-point operations of one position forward: two for each product with a weight."""
    cells = SHAPE[1] * SHAPE[2]
    total = 0
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            total += 2 * module.weight.numel() * cells
        elif isinstance(module, torch.nn.Linear):
            total += 2 * module.weight.numel()
    return total
