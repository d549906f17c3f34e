"""A tower of 3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2015, arXiv:1509.09308).

Each 2x2 square of outputs is computed from a 4x4 patch of inputs in 16 products a channel pair instead of 36. Per
layer that is 16 matrix products (torch) and, between two layers, one pass (numba) that ends a layer (inverse
transform, bias, residual, relu) and begins the next (transform). Batches go through in chunks that stay in cache.
NaN inputs are not propagated (relu gives 0); weights are checked where they are trained.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import nn

from selfplay.nets.simd import LANES, load, relu, store

#: Positions that go through the tower together: large enough for the products, small enough for the cache.
CHUNK = 32
#: Rows between the sixteen matrices that no tile uses: without them all begin in the same cache set.
SPARE = 2
#: The filter transform; rows give the four positions of a patch.
_FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def worthwhile(channels: int, height: int, width: int) -> bool:
    """Whether a board fills its 2x2 tiles well enough, and the channels the vectors.

    A direct convolution skips the products with the zeros around the board: (3H - 2)(3W - 2) of them remain.
    """
    tiles = -(-height // 2) * -(-width // 2)
    return channels % LANES == 0 and 16 * tiles < 0.8 * (3 * height - 2) * (3 * width - 2)


class Tower:
    """Residual blocks for inference, with weights fixed: relu(x + conv(relu(conv(x)))) for each pair of `convs`.

    channels: C. dtype: of the matrix products; sums inside them, the residual stream and everything else are float32.
    """

    def __init__(self, convs: list[nn.Conv2d], height: int, width: int, dtype: torch.dtype) -> None:
        self.channels = convs[0].out_channels
        filters = [_transform_filter(conv.weight.detach().float().numpy()) for conv in convs]
        self._filters = [torch.from_numpy(f).to(dtype) for f in filters]
        self._biases = [conv.bias.detach().float().numpy().copy() for conv in convs if conv.bias is not None]
        self._board = (height, width)
        self._dtype = dtype
        self._scratch: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        tall, wide = -(-height // 2), -(-width // 2)
        self._pad = np.zeros((2 * tall + 2, 2 * wide + 2, self.channels), np.float32)

    def __call__(self, x: np.ndarray) -> None:
        """Replaces `x`, `[B, H, W, C]` float32 C-contiguous, by the tower's output."""
        for start in range(0, len(x), CHUNK):
            self._run(x[start : start + CHUNK])

    def _run(self, x: np.ndarray) -> None:
        if len(x) not in self._scratch:
            tiles = len(x) * -(-self._board[0] // 2) * -(-self._board[1] // 2)
            shape = (16, tiles + SPARE, self.channels)
            self._scratch[len(x)] = (torch.zeros(shape, dtype=self._dtype), torch.zeros(shape, dtype=self._dtype))
        patches, products = self._scratch[len(x)]
        patches_array, products_array = _as_numpy(patches), _as_numpy(products)
        last = len(self._filters) - 1
        _enter(x, self._pad, patches_array)
        for i, (weight, bias) in enumerate(zip(self._filters, self._biases, strict=True)):
            torch.bmm(patches, weight, out=products)
            _step(products_array, bias, x, self._pad, patches_array, i % 2 == 1, i == last)


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _transform_filter(weight: np.ndarray) -> np.ndarray:
    """`[K, C, 3, 3]` -> `[16, C, K]` float32, G g G^T for each pair of channels."""
    out = np.einsum("ai,kcij,bj->abck", _FILTER, weight.astype(np.float64), _FILTER)
    return np.ascontiguousarray(out.reshape(16, weight.shape[1], weight.shape[0]), np.float32)


@njit(cache=True)
def _enter(x, pad, patches):  # type: ignore[no-untyped-def]
    """Transforms `x` `[B, H, W, C]` for the first layer."""
    count, height, width, _ = x.shape
    pad[:] = 0
    for b in range(count):
        pad[1 : height + 1, 1 : width + 1] = x[b]
        _spread(pad, patches, b)


@njit(cache=True)
def _step(products, bias, x, pad, patches, residual, last):  # type: ignore[no-untyped-def]
    """Ends a layer and, unless it is the last, begins the next. After a residual layer `x` holds its output."""
    count, height, width, channels = x.shape
    for b in range(count):
        _collect(products, bias, pad, b)
        here = x[b]
        for i in range(height):
            for j in range(width):
                at, own = ((i + 1) * pad.shape[1] + j + 1) * channels, (i * width + j) * channels
                for c in range(0, channels, LANES):
                    if residual:
                        sum_ = relu(load(pad, at + c) + load(here, own + c))
                        store(here, own + c, sum_)
                        store(pad, at + c, sum_)
                    else:
                        store(pad, at + c, relu(load(pad, at + c)))
        if not last:
            if width % 2:
                pad[:, width + 1] = 0
            if height % 2:
                pad[height + 1] = 0
            _spread(pad, patches, b)


@njit(cache=True)
def _spread(pad, patches, b):  # type: ignore[no-untyped-def]
    """patches[:, tiles of position b] = B^T d B of each overlapping 4x4 patch d of `pad` `[2 T + 2, 2 U + 2, C]`."""
    tall, wide, channels = pad.shape[0] // 2 - 1, pad.shape[1] // 2 - 1, pad.shape[2]
    row, plane = pad.shape[1] * channels, patches.shape[1] * channels
    for i in range(tall):
        for j in range(wide):
            for c in range(0, channels, LANES):
                d = (2 * i * pad.shape[1] + 2 * j) * channels + c
                out = ((b * tall + i) * wide + j) * channels + c
                for k in range(4):  # row k of B^T d
                    if k == 0:
                        first, second = d, d + 2 * row
                    elif k == 1:
                        first, second = d + row, d + 2 * row
                    elif k == 2:
                        first, second = d + 2 * row, d + row
                    else:
                        first, second = d + row, d + 3 * row
                    if k == 1:
                        a0 = load(pad, first) + load(pad, second)
                        a1 = load(pad, first + channels) + load(pad, second + channels)
                        a2 = load(pad, first + 2 * channels) + load(pad, second + 2 * channels)
                        a3 = load(pad, first + 3 * channels) + load(pad, second + 3 * channels)
                    else:
                        a0 = load(pad, first) - load(pad, second)
                        a1 = load(pad, first + channels) - load(pad, second + channels)
                        a2 = load(pad, first + 2 * channels) - load(pad, second + 2 * channels)
                        a3 = load(pad, first + 3 * channels) - load(pad, second + 3 * channels)
                    store(patches, out + 4 * k * plane, a0 - a2)
                    store(patches, out + (4 * k + 1) * plane, a1 + a2)
                    store(patches, out + (4 * k + 2) * plane, a2 - a1)
                    store(patches, out + (4 * k + 3) * plane, a1 - a3)


@njit(cache=True)
def _collect(products, bias, pad, b):  # type: ignore[no-untyped-def]
    """The inside of `pad` = A^T m A + bias for the tiles m of position b: a 2x2 square of outputs each."""
    tall, wide, channels = pad.shape[0] // 2 - 1, pad.shape[1] // 2 - 1, pad.shape[2]
    row, p = pad.shape[1] * channels, products.shape[1] * channels
    for i in range(tall):
        for j in range(wide):
            for c in range(0, channels, LANES):
                m = ((b * tall + i) * wide + j) * channels + c
                out = ((2 * i + 1) * pad.shape[1] + 2 * j + 1) * channels + c
                shift = load(bias, c)
                a0 = load(products, m) + load(products, m + 4 * p) + load(products, m + 8 * p)
                a1 = load(products, m + p) + load(products, m + 5 * p) + load(products, m + 9 * p)
                a2 = load(products, m + 2 * p) + load(products, m + 6 * p) + load(products, m + 10 * p)
                a3 = load(products, m + 3 * p) + load(products, m + 7 * p) + load(products, m + 11 * p)
                store(pad, out, a0 + a1 + a2 + shift)
                store(pad, out + channels, a1 - a2 - a3 + shift)
                a0 = load(products, m + 4 * p) - load(products, m + 8 * p) - load(products, m + 12 * p)
                a1 = load(products, m + 5 * p) - load(products, m + 9 * p) - load(products, m + 13 * p)
                a2 = load(products, m + 6 * p) - load(products, m + 10 * p) - load(products, m + 14 * p)
                a3 = load(products, m + 7 * p) - load(products, m + 11 * p) - load(products, m + 15 * p)
                store(pad, out + row, a0 + a1 + a2 + shift)
                store(pad, out + row + channels, a1 - a2 - a3 + shift)
