"""A cache of net outputs, compiled.

The key is a 128-bit hash of the net's input (the raw observation and the seat to act), of the legal actions, and of a
salt made from the weights' digest; where the game's rules are compiled (`rules.py`), of the position and that salt. So
an entry can only be found by the same position under the same weights. The chance that two of 10^9 positions share a
key is below 10^-20. The cache is emptied when the salt changes or when it is full.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

#: `row` of an entry whose evaluation is under way holds -1 - (row of the batch); of a finished one, its logits' start.
EMPTY = -(2**62)


class Cache(NamedTuple):
    """An open-addressing table of `M` (a power of two) entries, and the logits they point to.

    key: `[M, 2]` uint64. row: `[M]` int64. value: `[M]` float32, point of view of the seat to act.
    logits: `[L]` float32, consecutive by legal action. used: `[2]` int64, entries and logits in use.
    """

    key: Array
    row: Array
    value: Array
    logits: Array
    used: Array


def new_cache(entries: int, logits: int) -> Cache:
    """An empty cache of about `entries` positions (0: a cache that never holds anything) and `logits` floats."""
    size = 1
    while entries > 0 and size < entries * 4 // 3:
        size *= 2
    return Cache(
        np.zeros((size, 2), np.uint64),
        np.full(size, EMPTY, np.int64),
        np.zeros(size, np.float32),
        np.zeros(max(logits, 1) if entries > 0 else 1, np.float32),
        np.zeros(2, np.int64),
    )


def clear(cache: Cache) -> None:
    cache.row.fill(EMPTY)
    cache.used.fill(0)


@njit(cache=True, inline="always")
def _mix(h: np.uint64, word: np.uint64, odd: np.uint64) -> np.uint64:
    h = (h ^ word) * odd
    return h ^ (h >> np.uint64(29))


@njit(cache=True)
def hash_position(words: Array, seat: int, actions: Array, salt: Array) -> tuple[np.uint64, np.uint64]:
    """words: the observation's float32 entries as `[n]` uint32; actions: `[k]` int32; salt: `[2]` uint64."""
    odd_a, odd_b = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
    a = _mix(salt[0], np.uint64(seat + 1), odd_a)
    b = _mix(salt[1], np.uint64(seat + 1), odd_b)
    n = len(words)
    for i in range(0, n - 1, 2):
        word = np.uint64(words[i]) | (np.uint64(words[i + 1]) << np.uint64(32))
        a = _mix(a, word, odd_a)
        b = _mix(b, word, odd_b)
    if n % 2:
        a = _mix(a, np.uint64(words[n - 1]), odd_a)
        b = _mix(b, np.uint64(words[n - 1]), odd_b)
    for i in range(len(actions)):
        word = np.uint64(np.int64(actions[i]) + 1)
        a = _mix(a, word, odd_b)
        b = _mix(b, word, odd_a)
    return a ^ (a >> np.uint64(32)), b ^ (b >> np.uint64(31))


@njit(cache=True)
def hash_words(words: Array, salt: Array) -> tuple[np.uint64, np.uint64]:
    """The key of a position that is known by its own words `[n]` uint64 (`rules.py`) rather than by what it shows."""
    odd_a, odd_b = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
    a, b = salt[0], salt[1]
    for i in range(len(words)):
        a = _mix(a, words[i], odd_a)
        b = _mix(b, words[i], odd_b)
    a, b = _mix(a, odd_b, odd_a), _mix(b, odd_a, odd_b)
    return a ^ (a >> np.uint64(32)), b ^ (b >> np.uint64(31))


@njit(cache=True)
def find(cache: Cache, a: np.uint64, b: np.uint64) -> int:
    """The slot that holds the key, or the empty slot where it belongs."""
    mask = np.uint64(len(cache.row) - 1)
    i = a & mask
    while cache.row[i] != EMPTY and not (cache.key[i, 0] == a and cache.key[i, 1] == b):
        i = (i + np.uint64(1)) & mask
    return np.int64(i)


@njit(cache=True)
def has_room(cache: Cache, rows: int, logits: int) -> bool:
    """Whether `rows` more positions with `logits` logits in all fit."""
    return cache.used[0] + rows <= (3 * len(cache.row)) // 4 and cache.used[1] + logits <= len(cache.logits)


@njit(cache=True)
def reserve(cache: Cache, i: int, a: np.uint64, b: np.uint64, batch_row: int) -> None:
    """Marks slot `i` as being evaluated in row `batch_row` of the batch."""
    cache.key[i, 0] = a
    cache.key[i, 1] = b
    cache.row[i] = -1 - batch_row
    cache.used[0] += 1
