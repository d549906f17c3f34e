"""One training step of a policy-value net, and what is kept of a learner: plain torch, without ray.

`trainers.alphazero.rllib_module` builds RLlib's learner of these functions; `training_step` is all of them in a row,
which computes the same where there is one learner and no RLlib.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from selfplay.nets import NetConfig, PolicyValueNet, build, from_arrays, to_arrays
from selfplay.nets.policy_value import Convolution
from trainers.alphazero.learner_settings import Layout
from trainers.alphazero.loss import losses
from trainers.alphazero.optimizer import Optimizer

Arrays = dict[str, np.ndarray]
#: Averaged weights, by the names of the net's state; empty where none are kept.
Averaged = dict[str, Tensor]


def trainable(config: NetConfig, seed: int, layout: Layout = "channels_last") -> PolicyValueNet:
    """A net with the first weights of `seed`, its kernels in this layout and computed accordingly."""
    memory = torch.contiguous_format if layout == "contiguous" else torch.channels_last
    net: PolicyValueNet = build(config, seed).to(memory_format=memory)  # type: ignore[call-overload]
    for module in net.modules():
        if isinstance(module, Convolution):
            module.winograd = layout == "winograd"
    return net


def forward(net: PolicyValueNet, x: Tensor, bf16: bool, layout: Layout = "channels_last") -> tuple[Tensor, Tensor]:
    """Policy and value logits of observations `[B, *input_shape]`. bf16: convolutions and products in bfloat16."""
    if x.ndim == 4 and layout != "contiguous":
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        policy, value = net(x)
    return policy, value


def clip(net: PolicyValueNet, most: float) -> Tensor:
    """Scales the gradient so that its global norm is at most `most`; returns the norm before, detached."""
    parameters = [p for p in net.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, most).detach()


def training_step(
    net: PolicyValueNet, optimizer: Optimizer, batch: dict[str, Tensor], bf16: bool, grad_clip: float
) -> dict[str, Tensor]:
    """Forward, losses, gradient, clipping, optimiser. batch: as `ReplayWindow.sample` gives it, on the net's device.

    Returns what `losses` reports, and `grad_norm` before clipping.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, report = losses(*forward(net, batch["observations"], bf16), batch)
    loss.backward()
    report["grad_norm"] = clip(net, grad_clip)
    optimizer.step()
    return report


def average(averaged: Averaged, net: PolicyValueNet, step: int, ema: float) -> None:
    """An exponential average whose memory grows with the run at first, so that it does not lag behind."""
    if averaged:
        decay = min(ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                averaged[name].lerp_(value, 1 - decay)


def check_finite(net: PolicyValueNet) -> None:
    """Raises `FloatingPointError` where a weight is not finite."""
    for name, value in net.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(f"training diverged: {name} is not finite; restore the last checkpoint")


def state_of(net: PolicyValueNet, optimizer: Optimizer, averaged: Averaged) -> Arrays:
    """Net, the optimiser's moments and step counts, averaged weights: name -> float32 array, of no device."""
    tensors = {f"net/{name}": value for name, value in to_arrays(net).items()}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.moments(parameter).items():
            tensors[f"{key}/{name}"] = value.float().cpu().numpy().copy()
    tensors |= {f"ema/{name}": value.float().cpu().numpy().copy() for name, value in averaged.items()}
    return tensors


def load_state(
    net: PolicyValueNet, optimizer: Optimizer, averaged: Averaged, tensors: Mapping[str, np.ndarray]
) -> None:
    """The inverse of `state_of`, on whatever device the net is. Raises `ValueError` for the state of another net."""
    from_arrays(net, _below("net/", tensors))
    moments = {key: _below(f"{key}/", tensors) for key in optimizer.names}
    for name, parameter in net.named_parameters():
        known = {key: torch.tensor(named[name]) for key, named in moments.items() if name in named}
        optimizer.restore(parameter, known)
    kept = _below("ema/", tensors) or _below("net/", tensors)
    for name, value in averaged.items():
        value.copy_(torch.tensor(kept[name]))


def _below(prefix: str, tensors: Mapping[str, np.ndarray]) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
