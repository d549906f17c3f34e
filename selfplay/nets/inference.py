"""The fastest way from a batch of observations to priors and values, in this process."""

from __future__ import annotations

import time
from functools import partial
from typing import Literal

import numpy as np
import torch

from selfplay.errors import UserError
from selfplay.nets import choice, compiled
from selfplay.nets.choice import Choice, Way
from selfplay.nets.config import NetConfig
from selfplay.nets.cuda_graphs import CudaGraphs
from selfplay.nets.policy_value import FoldedNet, build, from_arrays, to_arrays, value_of

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
Backend = Literal["auto", "openvino", "torch"]
#: In torch on a CPU, batches are padded to a multiple of this: a new batch size costs a kernel.
BUCKET = 16
#: Most positions of a batch that is timed, and about how long (s) it may take in torch.
_TIMED, _TIMED_S = 128, 0.02
#: Positions on which int8 is compared with float32.
_COMPARED = 48


class Evaluator:
    """Holds one net's weights and evaluates batches: the search's one door to the net.

    evaluator = Evaluator(config); evaluator.load(tensors); logits, value = evaluator(observations)

    choice: the device, and the way that was chosen, with what decided it.
    dtype, method: the way in use. That of `choice`, unless int8 is not exact enough for the weights that are loaded.
    """

    def __init__(
        self,
        config: NetConfig,
        dtype: Dtype = "auto",
        device: str = "auto",
        threads: int = 1,
        positions: np.ndarray | None = None,
        backend: Backend = "auto",
    ) -> None:
        """Chooses how to evaluate; the weights are those of seed 0 until `load`.

        positions: `[N, *input_shape]` float32 of the game, about 100. With them `dtype` "auto" is the fastest way found
        by trying all for some tenths of a second, and an untrained net, too, can be evaluated in int8. Without them it
        is what `pick_dtype` says of the processor: the same each time. `device` "auto" is a GPU where there is one;
        `backend`: what computes a convolutional net on a CPU. `threads` is set for the whole process (torch has one
        setting). Raises `UserError` for a device, dtype or backend that is not there.
        """
        self.config = config
        self.device = pick_device(device)
        usual = pick_dtype(dtype, self.device, backend)
        self._positions = positions
        self._watched = dtype == "auto" and positions is not None
        self._threads = threads
        self._graphs: CudaGraphs | None = None  # of the GPU: recorded once, and kept when weights change
        torch.set_num_threads(threads)
        untrained = to_arrays(build(config, 0))
        compiles = backend != "torch" and config.resnet and self.device == "cpu" and compiled.available()
        if not config.resnet:  # an mlp is small: its dense layers stay exact
            self.choice = Choice(self.device, Way("torch", "float32"))
        elif self._watched:
            self.choice = self._chosen(untrained, compiles, backend != "openvino")
        else:
            self.choice = Choice(self.device, Way("openvino" if compiles else "torch", usual))
        self.load(untrained)

    @property
    def dtype(self) -> str:
        """ "float32", "bfloat16" or "int8"."""
        return self._way.dtype

    @property
    def method(self) -> str:
        """What computes it: "openvino" (convolutional nets on a CPU, where it is installed) or "torch" (on a GPU as
        CUDA graphs, see `selfplay.nets.cuda_graphs`)."""
        return self._way.method

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Takes the weights that `to_arrays` gave; a copy is made. Raises `ValueError` for those of another net."""
        self._way = self.choice.way
        if self._graphs is not None:
            self._graphs.load(self._folded(self._way, tensors))
            return
        self._function = self._made(self._way, tensors)
        if isinstance(self._function, CudaGraphs):
            self._graphs = self._function
        if self._watched and self._way.dtype == "int8" and not self._exact(tensors):
            exact = [trial.way for trial in self.choice.trials if trial.way.dtype != "int8"]
            self._way = exact[0]
            self._function = self._made(self._way, tensors)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates `B` observations, 1 or more.

        x: `[B, *input_shape]` float32, from the point of view of the seat to act.
        Returns policy logits `[B, A]` float32 over all actions, illegal ones included, and the expected value `[B]`
        float32 in [-1, 1], from the point of view of the seat to act. Both belong to the caller.
        """
        logits, value_logits = self._function(x)
        return logits, value_of(torch.from_numpy(value_logits)).numpy()

    def _made(self, way: Way, tensors: dict[str, np.ndarray]) -> choice.Function:
        """The function of a net with these weights."""
        folded = self._folded(way, tensors)
        if way.method == "torch":
            return _Torch(folded) if self.device == "cpu" else CudaGraphs(folded.to(self.device))
        if way.dtype == "int8" and self._positions is not None and not bool((folded.peaks > 0).all()):
            folded.peaks = folded.ranges(torch.from_numpy(self._positions))
        return compiled.compile_net(folded, way.dtype, self._threads)

    def _folded(self, way: Way, tensors: dict[str, np.ndarray]) -> FoldedNet:
        """On the CPU."""
        net = build(self.config, 0)
        from_arrays(net, tensors)
        reduced = way.method == "torch" and way.dtype == "bfloat16"
        return FoldedNet(net.eval().requires_grad_(False), torch.bfloat16 if reduced else torch.float32).eval()

    def _chosen(self, tensors: dict[str, np.ndarray], compiles: bool, torch_too: bool) -> Choice:
        """The fastest way here, of those of OpenVINO and of torch."""
        assert self._positions is not None
        ways = [Way("torch", "float32")]
        if has_bfloat16(self.device):
            ways.append(Way("torch", "bfloat16"))
        if compiles:
            compiling = [*(Way("openvino", way.dtype) for way in ways), Way("openvino", "int8")]
            ways = [*ways, *compiling] if torch_too else compiling
        alone = self.device == "cpu" and self._threads == 1
        clock = time.thread_time if alone else time.perf_counter
        made = self._made(Way("torch", "float32"), tensors)
        few = self._positions[:BUCKET]
        made(few)
        began = clock()
        made(few)
        cost = max(1e-9, (clock() - began) / len(few))
        count = int(min(_TIMED, max(len(few), _TIMED_S / cost)))
        x = np.resize(self._positions, (count, *self._positions.shape[1:]))
        trials = choice.measure([(way, partial(self._made, way, tensors)) for way in ways], x, clock)
        return Choice(self.device, choice.choose(trials), tuple(trials))

    def _exact(self, tensors: dict[str, np.ndarray]) -> bool:
        """Whether the way in use gives the policies of float32, as far as matters."""
        assert self._positions is not None
        some = self._positions[:_COMPARED]
        reference = self._made(Way("torch", "float32"), tensors)(some)[0]
        return choice.divergence(self._function(some)[0], reference) <= choice.EXACT_NATS


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


def pick_dtype(dtype: str, device: str, backend: str = "auto") -> str:
    """The dtype of inference where nothing is measured, so that it is the same each time.

    "auto" is int8 on a CPU with AVX512-VNNI and OpenVINO (policies differ from float32's by a KL of some 1e-5 nats),
    else bfloat16 where the device has it, else float32. Raises `UserError` for an unknown or impossible one, or for a
    backend that is not there.
    """
    if dtype not in ("auto", "float32", "bfloat16", "int8"):
        raise UserError(f"dtype {dtype!r} is unknown; it is auto, float32, bfloat16 or int8")
    if backend not in ("auto", "openvino", "torch"):
        raise UserError(f"backend {backend!r} is unknown; it is auto, openvino or torch")
    if backend == "openvino" and (device != "cpu" or not compiled.available()):
        raise UserError("backend openvino was asked for, which needs a CPU and the package openvino; use backend auto")
    if dtype == "int8" and (backend == "torch" or device != "cpu" or not compiled.available()):
        raise UserError("dtype int8 was asked for, which needs a CPU and the package openvino; use dtype auto")
    if dtype != "auto":
        return dtype
    if backend != "torch" and device == "cpu" and compiled.available() and torch.cpu._is_vnni_supported():
        return "int8"
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies in bfloat16: AVX512-BF16 (all AMX processors have it), GPUs since Ampere."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported())
