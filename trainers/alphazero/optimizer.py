"""The optimiser of the net: AdamW, or Muon for its hidden kernels and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adamw", "muon"]

#: Layers that give the net's outputs; as usual with Muon, they stay with AdamW.
_OUTPUTS = ("policy", "policy_board", "value")


class Optimizer(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) with Muon (Jordan et al. 2024) for hidden kernels, if asked.

    Muon replaces a kernel's averaged gradient by the nearest (semi-)orthogonal matrix; a convolution counts as the
    matrix [out, in * height * width]. Its steps are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982),
    so one learning rate serves both. Only kernels decay, not biases, gains and normalisation.

    The learning rate is that of `param_groups`, as anywhere in torch.
    """

    def __init__(self, net: nn.Module, name: OptimizerName, lr: float, weight_decay: float) -> None:
        named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        hidden = [p for n, p in named if name == "muon" and p.ndim > 1 and n.split(".")[0] not in _OUTPUTS]
        theirs = {id(p) for p in hidden}
        rest = [p for _, p in named if id(p) not in theirs]
        super().__init__([p for _, p in named], {"lr": lr})
        decay = {"lr": lr, "weight_decay": weight_decay}
        groups = [
            {"params": [p for p in rest if p.ndim > 1], **decay},
            {"params": [p for p in rest if p.ndim < 2], **decay, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(groups, fused=True)
        self._matrices = {p: _matrix(p.detach(), p).requires_grad_() for p in hidden}
        self._inner: list[torch.optim.Optimizer] = [self._adamw]
        if hidden:
            self._muon = torch.optim.Muon(self._matrices.values(), **decay, adjust_lr_fn="match_rms_adamw")
            self._inner.append(self._muon)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients that the net's parameters hold."""
        for parameter, matrix in self._matrices.items():
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad, parameter)
        for inner in self._inner:
            for group in inner.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            inner.step()

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What is remembered of a parameter, "optimiser/key" -> tensor; nothing before the first step."""
        matrix = self._matrices.get(parameter)
        if matrix is not None:
            return {f"muon/{key}": value for key, value in self._muon.state.get(matrix, {}).items()}
        return {f"adamw/{key}": value for key, value in self._adamw.state.get(parameter, {}).items()}

    def restore(self, parameter: nn.Parameter, moments: dict[str, Tensor]) -> None:
        """The inverse of `moments`; tensors of other optimisers are left out, as if no step had been taken."""
        matrix = self._matrices.get(parameter)
        inner, key, like = ("adamw/", parameter, parameter) if matrix is None else ("muon/", matrix, matrix)
        mine = {name.removeprefix(inner): value for name, value in moments.items() if name.startswith(inner)}
        state = (self._adamw if matrix is None else self._muon).state
        state.pop(key, None)
        if mine:
            state[key] = {name: _as(value, like) for name, value in mine.items()}

    @property
    def names(self) -> Iterable[str]:
        """What `moments` may hold."""
        return ("adamw/step", "adamw/exp_avg", "adamw/exp_avg_sq", "muon/momentum_buffer")


def _matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A kernel, or its gradient, as `[out, the rest]` in the parameter's order in memory; of a kernel a view."""
    if parameter.ndim == 4 and not parameter.is_contiguous():  # channels last
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(len(tensor), -1)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """A copy of `value`, on the device of `like` and, where it has its shape, in its memory layout."""
    if value.ndim == 0:
        return value.to(like.device)
    out = torch.empty_like(like, requires_grad=False)
    out.copy_(value)
    return out
