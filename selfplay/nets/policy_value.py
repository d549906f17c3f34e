"""The policy-value net: a residual tower or an mlp with two heads (AlphaZero, Silver et al. 2018, arXiv:1712.01815)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfplay.nets.config import NetConfig

#: Added to the variance in batch normalisation.
EPSILON = 1e-5


class Norm(nn.Module):
    """What follows a convolution: batch normalisation, or only a learned gain and bias per channel.

    After `fold` it does nothing: gain, bias and statistics are in the convolution before it.
    """

    def __init__(self, channels: int, kind: str, gain: float = 1.0) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))
        if kind == "batch":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "batch":
            if self.training and _world_size() > 1:
                return self._synchronised(x)
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, self.training, 0.1, EPSILON)
        return x * self.weight[:, None, None].to(x.dtype) + self.bias[:, None, None].to(x.dtype)

    def _synchronised(self, x: Tensor) -> Tensor:
        """Batch statistics over all processes, so that N learners compute what one computes on the whole batch."""
        from torch.distributed.nn.functional import all_reduce

        y = x.float()
        count = y.new_full((1,), y.numel() / y.shape[1])
        total = all_reduce(torch.cat([y.sum((0, 2, 3)), count]))
        mean = total[:-1] / total[-1]
        centred = y - mean[:, None, None]
        square: Tensor = all_reduce((centred * centred).sum((0, 2, 3)))
        var = square / total[-1]
        with torch.no_grad():
            self.mean.lerp_(mean, 0.1)
            self.var.lerp_(square / (total[-1] - 1), 0.1)
        scale = self.weight * torch.rsqrt(var + EPSILON)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class Convolution(nn.Conv2d):
    """3x3, padding 1, no bias. `winograd`: computed by `selfplay.nets.winograd`, on a CPU in float32."""

    winograd = False

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.winograd:
            return super().forward(x)
        from selfplay.nets.winograd import convolve  # compiled: only where it is used

        return convolve(x, self.weight)


class Block(nn.Module):
    """The parameters of relu(x + conv(relu(conv(x)))), 3x3 convolutions; `PolicyValueNet.forward` applies them."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels)
        self.norm1 = Norm(channels, kind)
        self.conv2 = Convolution(channels, channels)
        self.norm2 = Norm(channels, kind, gain=0.0 if kind == "none" else 1.0)


class PolicyValueNet(nn.Module):
    """Observations to policy and value logits.

    forward: `[B, *input_shape]` floats, from the point of view of the seat to act, ->
      policy logits `[B, A]` over all actions, illegal ones included, and
      value logits: `[B, 3]` (win, draw, loss of the seat to act) for outcome nets, otherwise `[B, 1]` before tanh.
    peaks: `[2 * blocks]`, about the largest activation that training has lately put into each convolution of the
      blocks; it sets the scales of int8 inference. 0 before training.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        values = 3 if config.outcome else 1
        if config.resnet:
            planes, height, width = config.input_shape
            cells, channels, kind = height * width, config.channels, config.norm
            self.stem = nn.Conv2d(planes, channels, 3, padding=1, bias=False)
            self.stem_norm = Norm(channels, kind)
            self.blocks = nn.ModuleList(Block(channels, kind) for _ in range(config.blocks))
            self.register_buffer("peaks", torch.zeros(2 * config.blocks))
            self.heads = nn.Conv2d(channels, config.policy_channels + config.value_channels, 1, bias=False)
            self.heads_norm = Norm(config.policy_channels + config.value_channels, kind)
            self.policy_board = nn.Conv2d(channels, config.policy_planes, 1) if config.policy_planes else None
            dense = config.num_actions - config.board_actions
            self.policy: Any = nn.Linear(config.policy_channels * cells, dense) if dense else None
            self.value_hidden = nn.Linear(config.value_channels * cells, config.value_hidden)
            self.value = nn.Linear(config.value_hidden, values)
        else:
            widths = [math.prod(config.input_shape)] + [config.hidden] * config.layers
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
            self.policy = nn.Linear(config.hidden, config.num_actions)
            self.value = nn.Linear(config.hidden, values)
        self._initialise()

    def _initialise(self) -> None:
        if self.value.weight.is_meta:  # only shapes are wanted; torch would import its compiler to draw numbers there
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():  # an untrained net prefers nothing: priors near uniform, values near zero
            for head in (self.policy, self.value, getattr(self, "policy_board", None)):
                if head is not None:
                    head.weight.mul_(0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.resnet:
            x = x.flatten(1)
            for layer in self.layers:
                x = F.relu(layer(x))
            return self.policy(x), self.value(x)
        x = F.relu(self.stem_norm(self.stem(x)))
        for i, block in enumerate(self.blocks):
            middle = F.relu(block.norm1(block.conv1(x)))
            if self.training:
                self._note_peaks(2 * i, x, middle)
            x = F.relu(x + block.norm2(block.conv2(middle)))
        return apply_heads(self, x, F.relu(self.heads_norm(self.heads(x))))

    @torch.no_grad()
    def _note_peaks(self, first: int, *activations: Tensor) -> None:
        """Old peaks fade over some hundred steps; 64 rows a step find the new ones."""
        now = torch.stack([x[:64].amax().float() for x in activations])
        known = self.peaks[first : first + len(now)]
        known.copy_(torch.maximum(now, 0.99 * known))


def value_of(value_logits: Tensor) -> Tensor:
    """Value logits `[B, 3]` or `[B, 1]` -> expected value `[B]` in [-1, 1], point of view of the seat to act."""
    if value_logits.shape[1] == 1:
        return torch.tanh(value_logits[:, 0])
    win_draw_loss = torch.softmax(value_logits, 1)
    return win_draw_loss[:, 0] - win_draw_loss[:, 2]


def build(config: NetConfig, seed: int) -> PolicyValueNet:
    """A net with fresh weights that depend on nothing but `config` and `seed`; global generators are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PolicyValueNet(config)


def to_arrays(net: PolicyValueNet) -> dict[str, np.ndarray]:
    """Parameters and batch-norm statistics, name -> float32 array (copies)."""
    return {name: np.array(t.detach().float().cpu().numpy()) for name, t in net.state_dict().items()}


def check_shapes(config: NetConfig, tensors: dict[str, np.ndarray]) -> None:
    """Raises `ValueError` where `tensors` are not those of a net of this shape. Takes no memory for the net."""
    with torch.device("meta"):
        own = PolicyValueNet(config).state_dict()
    if own.keys() != tensors.keys():
        raise ValueError(f"these weights are of another net: {sorted(own.keys() ^ tensors.keys())[:4]} differ")
    for name, tensor in own.items():
        if tuple(tensor.shape) != tensors[name].shape:
            raise ValueError(f"{name} has shape {tensors[name].shape}, the net needs {tuple(tensor.shape)}")


def from_arrays(net: PolicyValueNet, tensors: dict[str, np.ndarray]) -> None:
    """Writes `tensors` (as given by `to_arrays`) into `net`. Raises `ValueError` where names or shapes differ."""
    check_shapes(net.config, tensors)
    own = net.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(tensors[name]))  # from_numpy warns of read-only arrays


class FoldedNet(nn.Module):
    """The same function for inference only: every norm is folded into the convolution before it.

    Convolutions run in `dtype` and channels-last, dense layers in float32. Outputs are those of the net in eval mode,
    up to the rounding of `dtype`. `net` is used up: its modules become part of this one.
    """

    def __init__(self, net: PolicyValueNet, dtype: torch.dtype) -> None:
        super().__init__()
        config = self.config = net.config
        self.dtype = dtype
        if not config.resnet:
            self.layers, self.value = net.layers, net.value
            self.policy: Any = net.policy
            return
        self.stem = fold(net.stem, net.stem_norm, dtype)
        convs = [fold(*pair, dtype) for b in net.blocks for pair in ((b.conv1, b.norm1), (b.conv2, b.norm2))]
        self.convs = nn.ModuleList(convs)
        self.peaks = net.peaks
        self.heads = fold(net.heads, net.heads_norm, dtype)
        self.policy_board = None
        if net.policy_board is not None:
            self.policy_board = net.policy_board.to(dtype=dtype, memory_format=torch.channels_last)
        self.policy, self.value_hidden, self.value = net.policy, net.value_hidden, net.value

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.resnet:
            x = x.flatten(1)
            for layer in self.layers:
                x = torch.relu_(layer(x))
            return self.policy(x), self.value(x)
        x = torch.relu_(self.stem(x.to(dtype=self.dtype, memory_format=torch.channels_last)))
        for i in range(0, len(self.convs), 2):
            x = torch.relu_(self.convs[i + 1](torch.relu_(self.convs[i](x))).add_(x))
        return apply_heads(self, x, torch.relu_(self.heads(x)))

    @torch.no_grad()
    def ranges(self, x: Tensor) -> Tensor:
        """What `peaks` are for these observations `[B, *input_shape]`: for a resnet that was never trained."""
        found = []
        x = torch.relu_(self.stem(x.to(dtype=self.dtype, memory_format=torch.channels_last)))
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            middle = torch.relu_(first(x))
            found += [x.amax().float(), middle.amax().float()]
            x = torch.relu_(second(middle).add_(x))
        return torch.stack(found).clamp(min=1e-9)


def apply_heads(net: PolicyValueNet | FoldedNet, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Trunk output `[B, channels, H, W]` and the heads' planes `[B, policy + value channels, H, W]` -> logits."""
    split, logits = net.config.policy_channels, []
    if net.policy_board is not None:  # [B, planes, H, W] -> actions numbered [H, W, planes]
        logits.append(net.policy_board(x).permute(0, 2, 3, 1).flatten(1).float())
    if net.policy is not None:
        logits.append(net.policy(_dense(net.policy, kept[:, :split])).float())
    value = net.value(F.relu(net.value_hidden(_dense(net.value_hidden, kept[:, split:]))))
    return logits[0] if len(logits) == 1 else torch.cat(logits, 1), value.float()


def _dense(layer: nn.Linear, planes: Tensor) -> Tensor:
    return planes.flatten(1).to(layer.weight.dtype)


def fold(conv: nn.Conv2d, norm: Norm, dtype: torch.dtype) -> nn.Conv2d:
    """A convolution with bias, in `dtype` and channels-last, that equals `norm(conv(x))` in eval mode."""
    scale, shift = norm.weight.detach().double(), norm.bias.detach().double()
    if norm.kind == "batch":
        scale = scale * torch.rsqrt(norm.var.double() + EPSILON)
        shift = shift - scale * norm.mean.double()
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)
    with torch.no_grad():
        folded.weight.copy_((conv.weight.double() * scale[:, None, None, None]).float())
        folded.bias.copy_(shift.float())
    return folded.to(dtype=dtype, memory_format=torch.channels_last)
