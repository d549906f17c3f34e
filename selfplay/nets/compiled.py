"""A net as an OpenVINO graph: on CPUs about twice as fast as the same convolutions one by one in torch.

int8: the 3x3 convolutions of the blocks multiply 8-bit numbers. Weights are scaled for each output channel;
activations, never negative, by the largest that training has seen in each layer (`PolicyValueNet.peaks`, which travels
with the weights, so that every process rounds alike; of an untrained net, by the largest for some random positions).
Stem, heads and the residual stream stay in higher precision.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn

from selfplay.nets.choice import Function
from selfplay.nets.policy_value import FoldedNet

#: Room above the largest activation seen in training.
MARGIN = 1.05
#: Batches are padded to a multiple of this: each new batch size costs milliseconds the first time.
BUCKET = 8


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether OpenVINO is installed."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True


def compile_net(net: FoldedNet, dtype: str, threads: int) -> Function:
    """Compiles a folded float32 resnet; some 50 ms. `dtype`: "float32", "bfloat16" or "int8".

    int8 falls back to bfloat16 for a net that knows no largest activations.
    """
    import openvino

    builder = _Builder(net, quantise=dtype == "int8" and bool((net.peaks > 0).all()))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if dtype == "float32" else "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # or every process would compute on the first core
    }
    request = _core().compile_model(openvino.Model(builder.outputs, [builder.input], "net"), "CPU", settings)
    return _Run(request.create_infer_request(), net.config.input_shape)


@lru_cache(maxsize=1)
def _core() -> Any:
    import openvino

    return openvino.Core()


class _Run:
    def __init__(self, request: Any, input_shape: tuple[int, ...]) -> None:
        self._request = request
        self._padded = np.zeros((0, *input_shape), np.float32)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(x)
        size = -(-count // BUCKET) * BUCKET
        if size != count or not x.flags.c_contiguous:
            if size > len(self._padded):
                self._padded = np.zeros((size, *x.shape[1:]), np.float32)
            self._padded[:count] = x
            x = self._padded[:size]
        out = self._request.infer({0: x}, share_inputs=True, share_outputs=False)
        return out[0][:count], out[1][:count]


class _Builder:
    """Writes the graph of a folded resnet; `input` and `outputs` (policy and value logits) are its ends."""

    def __init__(self, net: FoldedNet, quantise: bool) -> None:
        from openvino import PartialShape, opset13

        self._ops = ops = opset13
        self._peaks = net.peaks.numpy() * MARGIN if quantise else None
        self.input = ops.parameter(PartialShape([-1, *net.config.input_shape]), np.float32)
        x = ops.relu(self._conv(self.input, net.stem))
        for i in range(0, len(net.convs), 2):
            y = ops.relu(self._conv(x, net.convs[i], i))
            x = ops.relu(ops.add(x, self._conv(y, net.convs[i + 1], i + 1)))
        kept = self._flat(ops.relu(self._conv(x, net.heads)))
        _, height, width = net.config.input_shape
        split = net.config.policy_channels * height * width
        end = split + net.config.value_channels * height * width
        policy = []
        if net.policy_board is not None:  # [B, planes, H, W] -> actions numbered [H, W, planes]
            board = self._conv(x, net.policy_board)
            policy.append(self._flat(ops.transpose(board, ops.constant(np.array([0, 2, 3, 1])))))
        if net.policy is not None:
            policy.append(self._linear(self._slice(kept, 0, split), net.policy))
        hidden = ops.relu(self._linear(self._slice(kept, split, end), net.value_hidden))
        self.outputs = [policy[0] if len(policy) == 1 else ops.concat(policy, 1), self._linear(hidden, net.value)]

    def _conv(self, x: Any, conv: nn.Conv2d, layer: int | None = None) -> Any:
        """`layer`: which of the blocks' convolutions this is; only those may be in int8."""
        ops, weight = self._ops, _array(conv.weight)
        kernel, edge = ops.constant(weight), weight.shape[-1] // 2
        if layer is not None and self._peaks is not None:
            widest = np.maximum(np.abs(weight).max((1, 2, 3), keepdims=True), np.float32(1e-9))
            kernel = ops.fake_quantize(kernel, -widest, widest, -widest, widest, 255)
            zero, peak = np.float32(0), self._peaks[layer]
            x = ops.fake_quantize(x, zero, peak, zero, peak, 256)
        pads = [edge, edge]
        y = ops.convolution(x, kernel, [1, 1], pads, pads, [1, 1])
        return ops.add(y, ops.constant(_array(conv.bias).reshape(1, -1, 1, 1)))

    def _linear(self, x: Any, linear: nn.Linear) -> Any:
        product = self._ops.matmul(x, self._ops.constant(_array(linear.weight)), False, True)
        return self._ops.add(product, self._ops.constant(_array(linear.bias)))

    def _flat(self, x: Any) -> Any:
        return self._ops.reshape(x, self._ops.constant(np.array([0, -1])), True)

    def _slice(self, x: Any, start: int, stop: int) -> Any:
        ops = self._ops
        return ops.slice(x, ops.constant([start]), ops.constant([stop]), ops.constant([1]), ops.constant([1]))


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array
