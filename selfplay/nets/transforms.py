"""The compiled transforms of `selfplay.nets.winograd`: boards to products and back, all arrays flat."""

from __future__ import annotations

import numba
import numpy as np

#: So many numbers, of several boards where they have few channels, are transformed at once.
_RUN = 256


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, boundscheck=False)
def _combine(x, x_start, x_step, out, out_start, out_step, width, first, index, factor):
    """Rows of `width` numbers: out[row] = sum of factor * x[index] over the row's terms."""
    for row in range(len(first) - 1):
        o = np.uint64(out_start + row * out_step)  # unsigned: a place that may count from the end is not vectorised
        for group in range(first[row], first[row + 1]):
            f0, f1, f2, f3 = factor[group, 0], factor[group, 1], factor[group, 2], factor[group, 3]
            k0 = np.uint64(x_start + index[group, 0] * x_step)
            k1 = np.uint64(x_start + index[group, 1] * x_step)
            k2 = np.uint64(x_start + index[group, 2] * x_step)
            k3 = np.uint64(x_start + index[group, 3] * x_step)
            if group == first[row]:
                for c in range(np.uint64(width)):
                    out[o + c] = f0 * x[k0 + c] + f1 * x[k1 + c] + f2 * x[k2 + c] + f3 * x[k3 + c]
            else:
                for c in range(np.uint64(width)):
                    out[o + c] += f0 * x[k0 + c] + f1 * x[k1 + c] + f2 * x[k2 + c] + f3 * x[k3 + c]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _copy(x, x_start, x_step, out, out_start, out_step, count, width):
    """`count` runs of `width` numbers."""
    for i in range(count):
        a, b = np.uint64(x_start + i * x_step), np.uint64(out_start + i * out_step)
        for c in range(np.uint64(width)):
            out[b + c] = x[a + c]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def to_products(x, out, begin, end, pitch, height, width, channels, h0, h1, h2, w0, w1, w2):
    """Boards `[B, H, W, C]`, those from `begin` to `end`, -> products `[P, Q, B, C]`, `pitch` from one to the next."""
    p, q, cells = len(h0) - 1, len(w0) - 1, height * width
    at_once = max(1, _RUN // channels)
    boards = np.empty(cells * at_once * channels, np.float32)  # [H, W, boards, C]
    middle = np.empty(p * width * at_once * channels, np.float32)  # [P, W, boards, C]
    for board in range(begin, end, at_once):
        count = min(at_once, end - board)
        run = count * channels
        for i in range(count):
            _copy(x, (board + i) * cells * channels, channels, boards, i * channels, run, cells, channels)
        _combine(boards, 0, width * run, middle, 0, width * run, width * run, h0, h1, h2)
        for i in range(p):
            start = i * q * pitch + board * channels
            _combine(middle, i * width * run, run, out, start, pitch, run, w0, w1, w2)


@numba.njit(nogil=True, cache=True, boundscheck=False)
def to_boards(x, out, begin, end, pitch, height, width, channels, h0, h1, h2, w0, w1, w2):
    """Products `[P, Q, B, C]`, `pitch` from one to the next, -> boards `[B, H, W, C]`, those from `begin` to `end`."""
    p, q, cells = h1.max() + 1, w1.max() + 1, height * width
    at_once = max(1, _RUN // channels)
    boards = np.empty(cells * at_once * channels, np.float32)  # [H, W, boards, C]
    middle = np.empty(p * width * at_once * channels, np.float32)  # [P, W, boards, C]
    for board in range(begin, end, at_once):
        count = min(at_once, end - board)
        run = count * channels
        for i in range(p):
            start = i * q * pitch + board * channels
            _combine(x, start, pitch, middle, i * width * run, run, run, w0, w1, w2)
        _combine(middle, 0, width * run, boards, 0, width * run, width * run, h0, h1, h2)
        for i in range(count):
            _copy(boards, i * channels, run, out, (board + i) * cells * channels, channels, cells, channels)
