"""The fastest way from a batch of observations to priors and values, in this process."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from selfplay.errors import UserError
from selfplay.nets import compiled
from selfplay.nets.config import NetConfig
from selfplay.nets.cuda_graphs import CudaGraphs
from selfplay.nets.policy_value import FoldedNet, build, from_arrays, to_arrays, value_of

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
#: In torch on a CPU, batches are padded to a multiple of this: a new batch size costs a kernel.
BUCKET = 16


class Evaluator:
    """Holds one net's weights and evaluates batches: the search's one door to the net.

    evaluator = Evaluator(config); evaluator.load(tensors); logits, value = evaluator(observations)

    device, dtype: what was chosen ("cpu" or "cuda"; "float32", "bfloat16" or "int8").
    method: what computes it: "openvino" (convolutional nets on a CPU, where it is installed) or "torch" (on a GPU as
      CUDA graphs, see `selfplay.nets.cuda_graphs`).
    """

    def __init__(self, config: NetConfig, dtype: Dtype = "auto", device: str = "auto", threads: int = 1) -> None:
        """`dtype` "auto" is the fastest that this machine multiplies in, see `pick_dtype`.

        `device` "auto" is a GPU where there is one. `threads` is set for the whole process (torch has one setting).
        The weights are those of seed 0 until `load`. Raises `UserError` for a device or dtype that is not there.
        """
        self.config = config
        self.device = pick_device(device)
        picked = pick_dtype(dtype, self.device)
        self.dtype = picked if config.resnet else "float32"  # an mlp is small: its dense layers stay exact
        self.method = "openvino" if config.resnet and self.device == "cpu" and compiled.available() else "torch"
        self._threads = threads
        self._graphs: CudaGraphs | None = None  # of the GPU: recorded once, and kept when weights change
        torch.set_num_threads(threads)
        self.load(to_arrays(build(config, 0)))

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Takes the weights that `to_arrays` gave; a copy is made. Raises `ValueError` for those of another net."""
        net = build(self.config, 0)
        from_arrays(net, tensors)
        net = net.eval().requires_grad_(False)
        self._function: compiled.Function
        if self.method == "openvino":
            self._function = compiled.compile_net(FoldedNet(net, torch.float32), self.dtype, self._threads)
        else:
            folded = FoldedNet(net, torch.bfloat16 if self.dtype == "bfloat16" else torch.float32).eval()
            if self.device == "cpu":
                self._function = _Torch(folded)
            elif self._graphs is None:
                self._function = self._graphs = CudaGraphs(folded.to(self.device))
            else:
                self._graphs.load(folded)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates `B` observations, 1 or more.

        x: `[B, *input_shape]` float32, from the point of view of the seat to act.
        Returns policy logits `[B, A]` float32 over all actions, illegal ones included, and the expected value `[B]`
        float32 in [-1, 1], from the point of view of the seat to act. Both belong to the caller.
        """
        logits, value_logits = self._function(x)
        return logits, value_of(torch.from_numpy(value_logits)).numpy()


class _Torch:
    """Runs a folded net in torch on the CPU."""

    def __init__(self, net: FoldedNet) -> None:
        self._net = net
        self._input = torch.empty(0)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(x)
        size = -(-count // BUCKET) * BUCKET
        if size > len(self._input):
            self._input = torch.zeros((size, *x.shape[1:]))
        batch = self._input[:size]
        batch[:count] = torch.from_numpy(x)
        with torch.inference_mode():
            logits, value_logits = self._net(batch)
            return logits[:count].numpy(), value_logits[:count].numpy()


def pick_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, otherwise "cpu". Raises `UserError` for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown; it is auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but this machine has no GPU that torch can use; use device auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def pick_dtype(dtype: str, device: str) -> str:
    """The dtype of inference: "auto" -> the fastest that `device` multiplies in, without loss that matters.

    That is int8 on a CPU with AVX512-VNNI and OpenVINO (policies differ from float32's by a KL of some 1e-5 nats),
    else bfloat16 where the device has it, else float32. Raises `UserError` for an unknown or impossible one.
    """
    if dtype not in ("auto", "float32", "bfloat16", "int8"):
        raise UserError(f"dtype {dtype!r} is unknown; it is auto, float32, bfloat16 or int8")
    if dtype == "int8" and (device != "cpu" or not compiled.available()):
        raise UserError("dtype int8 was asked for, which needs a CPU and the package openvino; use dtype auto")
    if dtype != "auto":
        return dtype
    if device == "cpu" and compiled.available() and torch.cpu._is_vnni_supported():
        return "int8"
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies in bfloat16: AVX512-BF16 (all AMX processors have it), GPUs since Ampere."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported())
