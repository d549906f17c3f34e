"""A folded net on a GPU as CUDA graphs: one launch a batch, where a net's layers are dozens of small ones.

A graph is recorded for one batch size, so batches are padded to few sizes. It reads its weights where they lay when it
was recorded: newer weights are written over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfplay.nets.policy_value import FoldedNet

#: Batches are padded to a multiple of this, and above eight times this to one of four sizes an octave.
_STEP = 16
#: Passes before a graph is recorded, in which the libraries choose their kernels and take their memory.
_WARM_UP = 2


def padded(count: int) -> int:
    """The batch size that `count` rows, 1 or more, are computed in: at most a quarter more, above 64."""
    step = max(_STEP, 1 << max((count - 1).bit_length() - 3, 0))
    return -(-count // step) * step


class CudaGraphs:
    """Runs a folded net: batch `[B, *input_shape]` float32 -> policy logits `[B, A]`, value logits `[B, 3 or 1]`.

    Convolutions of a float32 net multiply float32 numbers, not TF32, which is what torch would choose.
    """

    def __init__(self, net: FoldedNet) -> None:
        """`net` lies on the GPU; it becomes part of this."""
        self._net = net
        self._actions = net.config.num_actions
        # All graphs share memory: one runs at a time, and none reads another's results.
        self._shared = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self._recorded: dict[int, _Recorded] = {}

    def load(self, net: FoldedNet) -> None:
        """Takes the weights of another net of the same shape, on any device; a copy is made."""
        self._net.load_state_dict(net.state_dict())  # which writes over the tensors that are there

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, size = len(x), padded(len(x))
        with torch.inference_mode():
            recorded = self._recorded.get(size)
            if recorded is None:
                recorded = self._recorded[size] = _Recorded(self._net, size, *self._shared)
            rows = recorded(x)[:count]
        return rows[:, : self._actions].copy(), rows[:, self._actions :].copy()


class _Recorded:
    """One batch size. Inputs and outputs have their fixed places in pinned memory and on the GPU."""

    def __init__(self, net: FoldedNet, size: int, stream: Any, pool: Any) -> None:
        self._given = torch.zeros((size, *net.config.input_shape), pin_memory=True)
        self._input = self._given.to("cuda")
        self._graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        # cuDNN would round float32 inputs to TF32 unless told otherwise.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    joined(net, self._input)
            # Other threads of the process may use the GPU meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._output = joined(net, self._input)
        torch.cuda.current_stream().wait_stream(stream)
        self._taken = torch.empty(self._output.shape, pin_memory=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows of policy and value logits side by side; overwritten by the next call."""
        self._given[: len(x)] = torch.from_numpy(x)
        self._input.copy_(self._given, non_blocking=True)
        self._graph.replay()
        self._taken.copy_(self._output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._taken.numpy()


def joined(net: FoldedNet, x: Tensor) -> Tensor:
    """Policy and value logits side by side, `[B, A + 3 or 1]` float32: one copy back instead of two."""
    return torch.cat(net(x), 1)
