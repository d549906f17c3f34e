"""3x3 convolutions of boards by Winograd's minimal filtering (Lavin and Gray 2015, arXiv:1509.09308), for training.

Fewer multiplications: a line of outputs is cut into tiles of 2, 3 or 4, F(m, 3), and F(m, 3) takes m + 2 products where
a convolution takes 3m; a board of 6 by 7 takes 110 instead of 378 a pair of channels. Each product of transformed board
and kernel is one matrix product of all rows; the transforms are compiled and cost little more than a copy. Padding is
part of the transforms.

Rounding: float32 with the points 0, 1, -1, 2, -2, infinity; outputs and gradients differ from those of a convolution by
some 1e-6 of the largest. On processors without 512-bit units a pass forward and backward takes about half the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfplay.compilation import kept_by_sources

with kept_by_sources(Path(__file__).parent):
    from selfplay.nets.transforms import to_boards, to_products

#: The points at which polynomials are evaluated, besides infinity.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)
#: Terms that are added up at a time.
_TERMS = 4
#: A portion of a batch has about so many numbers, so that its products stay in a cache, and at least some boards.
_PORTION, _LEAST = 1 << 19, 16


def tile(outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F(m, 3) for m `outputs`: A `[m, n]`, B `[n, n]`, G `[n, 3]`, float64, n = m + 2.

    A @ ((G @ kernel) * (B @ inputs)) are the m outputs of a kernel of 3 over n inputs (a correlation).
    """
    n = outputs + 2
    points = np.array(_POINTS[: n - 1])
    powers = np.vander(points, n, increasing=True)  # [n - 1, n]
    a, b, g = np.zeros((outputs, n)), np.zeros((n, n)), np.zeros((n, 3))
    a[:, :-1], a[-1, -1] = powers[:, :outputs].T, 1.0
    for i, point in enumerate(points):
        others = np.delete(points, i)
        b[i, : n - 1] = np.poly(others)[::-1]
        g[i] = powers[i, :3] / np.prod(point - others)
    b[-1] = np.poly(points)[::-1]
    g[-1, 2] = 1.0
    return a, b, g


def line(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A `[cells, P]`, B `[P, cells]`, G `[P, 3]` of a whole line, zero beyond its ends, in the fewest products."""
    sizes = _sizes(cells)
    tiles = [tile(size) for size in sizes]
    total = sum(size + 2 for size in sizes)
    a, b = np.zeros((cells, total)), np.zeros((total, cells + 2))
    output = product = 0
    for size, (of_a, of_b, _) in zip(sizes, tiles, strict=True):
        places = slice(product, product + size + 2)
        a[output : output + size, places] = of_a
        b[places, output : output + size + 2] = of_b
        output, product = output + size, product + size + 2
    return a, b[:, 1:-1], np.concatenate([of_g for _, _, of_g in tiles])


@lru_cache(maxsize=32)
def _sizes(cells: int) -> tuple[int, ...]:
    if cells <= 0:
        return ()
    options = [(size, *_sizes(cells - size)) for size in (4, 3, 2, 1) if size <= cells]
    return min(options, key=lambda sizes: (sum(sizes) + 2 * len(sizes), len(sizes)))


@dataclass(frozen=True)
class _Terms:
    """A matrix `[rows, columns]` row by row as terms, `_TERMS` at a time; missing terms have a factor of 0.

    first: `[rows + 1]` where a row's groups begin. index, factor: `[groups, _TERMS]`.
    """

    first: np.ndarray
    index: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> _Terms:
        first, index, factor = [0], [], []
        for row in matrix:
            known = np.flatnonzero(row)
            for start in range(0, max(1, len(known)), _TERMS):
                some = known[start : start + _TERMS]
                gap = _TERMS - len(some)
                index.append([*some, *[int(some[0]) if len(some) else 0] * gap])
                factor.append([*row[some], *[0.0] * gap])
            first.append(len(index))
        return cls(np.array(first), np.array(index, np.int64), np.array(factor, np.float32))


class Plan:
    """The transforms of boards of one size."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        (a_h, b_h, self.g_h), (a_w, b_w, self.g_w) = line(height), line(width)
        self.products = (len(b_h), len(b_w))
        self._into = (_Terms.of(b_h), _Terms.of(b_w))  # boards to products, of what goes in
        self._out = (_Terms.of(a_h), _Terms.of(a_w))  # products to boards, of what comes out
        self._into_back = (_Terms.of(b_h.T), _Terms.of(b_w.T))
        self._out_back = (_Terms.of(a_h.T), _Terms.of(a_w.T))

    @cached_property
    def kernel_transform(self) -> Tensor:
        """`[P * Q, 9]`: a kernel's 3x3 numbers to its factors."""
        return torch.from_numpy(np.kron(self.g_h, self.g_w).astype(np.float32))

    def forward(self, x: Tensor, factors: Tensor) -> Tensor:
        """Boards `[B, C, H, W]`, factors `[P * Q, C, O]` -> `[B, O, H, W]`; boards are channels-last."""
        result = self._boards(x, factors.shape[2])
        for some, space in self._portions(x, factors):
            into = self._to_products(x, some, self._into, space[0])
            torch.bmm(into, factors, out=(out := space[1][:, : len(into[0])]))
            self._to_boards(out, result, some, self._out)
        return result

    def backward(self, x: Tensor, factors: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of `x` and `factors`, given that of the result."""
        of_x, of_factors = self._boards(x, x.shape[1]), torch.zeros_like(factors)
        transposed = factors.transpose(1, 2)
        for some, space in self._portions(x, factors):
            out = self._to_products(gradient, some, self._out_back, space[1])
            into = self._to_products(x, some, self._into, space[0])
            of_factors.baddbmm_(into.transpose(1, 2), out)
            torch.bmm(out, transposed, out=into)
            self._to_boards(into, of_x, some, self._into_back)
        return of_x, of_factors

    def _boards(self, like: Tensor, channels: int) -> Tensor:
        shape = (len(like), channels, self.height, self.width)
        return torch.empty(shape, memory_format=torch.channels_last)

    def _portions(self, x: Tensor, factors: Tensor) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
        """Parts of a batch that stay in a core's cache, and room for their products."""
        products, inputs, outputs = factors.shape
        size = max(_LEAST, _PORTION // (products * max(inputs, outputs))) * torch.get_num_threads()
        count = -(-len(x) // size)
        size = -(-len(x) // count)
        space = torch.empty(products, size, inputs), torch.empty(products, size, outputs)
        for start in range(0, len(x), size):
            yield slice(start, min(start + size, len(x))), space

    def _to_products(self, boards: Tensor, some: slice, terms: tuple[_Terms, _Terms], space: Tensor) -> Tensor:
        out = space[:, : some.stop - some.start]
        self._run(to_products, boards[some].permute(0, 2, 3, 1), out, out, terms)
        return out

    def _to_boards(self, products: Tensor, boards: Tensor, some: slice, terms: tuple[_Terms, _Terms]) -> None:
        self._run(to_boards, products, boards[some].permute(0, 2, 3, 1), products, terms)

    def _run(self, kernel: Any, x: Tensor, out: Tensor, products: Tensor, terms: tuple[_Terms, _Terms]) -> None:
        _, count, channels = products.shape
        tables = [table for of in terms for table in (of.first, of.index, of.factor)]
        threads = min(torch.get_num_threads(), max(1, count // 32))
        ends = [count * i // threads for i in range(threads + 1)]
        parts = [
            (_flat(x), _flat(out), *ends[i : i + 2], products.stride(0), self.height, self.width, channels, *tables)
            for i in range(threads)
        ]
        if threads == 1:
            kernel(*parts[0])
        else:
            list(_pool(threads).map(lambda part: kernel(*part), parts))


def _flat(tensor: Tensor) -> np.ndarray:
    """All that lies in memory from the first number of a tensor on, `[N]`."""
    tensor = tensor.detach()
    size = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat: np.ndarray = tensor.as_strided((size,), (1,)).numpy()
    return flat


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


@lru_cache(maxsize=32)
def plan(height: int, width: int) -> Plan:
    """The plan for boards of this size."""
    return Plan(height, width)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, factors)
        return plan(*x.shape[2:]).forward(x, factors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, factors = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        return plan(*x.shape[2:]).backward(x, factors, gradient)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution with padding 1: x `[B, C, H, W]` float32 on the CPU, weight `[O, C, 3, 3]` -> `[B, O, H, W]`.

    The result is channels-last. Differentiable in both.
    """
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    factors = (plan(*x.shape[2:]).kernel_transform @ flat).view(-1, inputs, outputs)
    result: Tensor = _Convolution.apply(x, factors)
    return result
