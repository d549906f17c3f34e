"""The fastest way from a batch of observations to priors and values, in this process."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from selfplay.errors import UserError
from selfplay.nets.config import NetConfig
from selfplay.nets.policy_value import FoldedNet, build, from_arrays, to_arrays, value_of

Dtype = Literal["auto", "float32", "bfloat16"]
#: Batches are padded to a multiple of this: a new batch size costs a kernel, and few sizes are met all the time.
BUCKET = 16


class Evaluator:
    """Holds one net's weights and evaluates batches: the search's one door to the net.

    evaluator = Evaluator(config); evaluator.load(tensors); logits, value = evaluator(observations)

    device, dtype: what was chosen ("cpu" or "cuda"; "float32" or "bfloat16").
    """

    def __init__(self, config: NetConfig, dtype: Dtype = "auto", device: str = "auto", threads: int = 1) -> None:
        """`dtype` "auto" is bfloat16 where the processor or GPU multiplies in it, otherwise float32.

        `device` "auto" is a GPU where there is one. `threads` is set for the whole process (torch has one setting).
        The weights are those of seed 0 until `load`. Raises `UserError` for a device that is not there.
        """
        self.config = config
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        torch.set_num_threads(threads)
        self._input = torch.empty(0)
        self.load(to_arrays(build(config, 0)))

    @property
    def _torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Takes the weights that `to_arrays` gave; a copy is made. Raises `ValueError` for those of another net."""
        net = build(self.config, 0)
        from_arrays(net, tensors)
        net = net.eval().requires_grad_(False)
        self._net = FoldedNet(net, self._torch_dtype, winograd=self.device == "cpu").eval().to(self.device)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates `B` observations, 1 or more.

        x: `[B, *input_shape]` float32, from the point of view of the seat to act.
        Returns policy logits `[B, A]` float32 over all actions, illegal ones included, and the expected value `[B]`
        float32 in [-1, 1], from the point of view of the seat to act. Both belong to the caller.
        """
        count = x.shape[0]
        padded = -(-count // BUCKET) * BUCKET
        if padded > self._input.shape[0]:
            self._input = torch.zeros((padded, *self.config.input_shape), pin_memory=self.device == "cuda")
        batch = self._input[:padded]
        batch[:count] = torch.from_numpy(x)
        with torch.inference_mode():
            logits, value_logits = self._net(batch.to(self.device, non_blocking=True))
            logits, value = logits[:count].cpu(), value_of(value_logits[:count]).cpu()
        return logits.numpy(), value.numpy()


def pick_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, otherwise "cpu". Raises `UserError` for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown; it is auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but this machine has no GPU that torch can use; use device auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def pick_dtype(dtype: str, device: str) -> str:
    """ "auto" -> "bfloat16" where `device` multiplies in it (AVX512-BF16, AMX, GPUs since Ampere), else "float32"."""
    if dtype not in ("auto", "float32", "bfloat16"):
        raise UserError(f"dtype {dtype!r} is unknown; it is auto, float32 or bfloat16")
    if dtype != "auto":
        return dtype
    if device == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
