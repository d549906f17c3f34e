"""Finds an expression of given positive integers that has a given value."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

from envs.tasks._expression import Tree

Numbers = tuple[int, ...]


def search(numbers: Numbers, target: int) -> Tree | None:
    """A tree of all the numbers with the value `target`, all of whose parts are positive integers; None: there is none.

    The numbers are parted in two in every way. Of the smaller part all values are made, and each says which values the
    other part would have to have.
    """
    if len(numbers) <= 3:
        return _made(numbers).get(target)
    for part, rest in _parted(numbers):
        for value, tree in _made(part).items():
            for operation, needed, first in _needed(value, target):
                other = search(rest, needed)
                if other is not None:
                    return (operation, tree, other) if first else (operation, other, tree)
    return None


@lru_cache(4096)
def _parted(numbers: Numbers) -> list[tuple[Numbers, Numbers]]:
    """Each way to part `numbers` in two, the smaller part first; equal ones once."""
    places = range(len(numbers))
    chosen = [set(some) for size in range(1, len(numbers) // 2 + 1) for some in combinations(places, size)]
    parted = [(tuple(numbers[i] for i in some), tuple(numbers[i] for i in places if i not in some)) for some in chosen]
    return list(dict.fromkeys(parted))


def _needed(value: int, target: int) -> Iterator[tuple[str, int, bool]]:
    """Each operation and number that make `target` of `value`; whether `value` is the first operand."""
    if target > value:
        yield "+", target - value, True
    if value > target:
        yield "-", value - target, True
    yield "-", target + value, False
    if target % value == 0:
        yield "*", target // value, True
    if value % target == 0:
        yield "/", value // target, True
    yield "/", target * value, False


@lru_cache(4096)
def _made(numbers: Numbers) -> dict[int, Tree]:
    """Every positive integer that all of up to three numbers can make, with a tree for each."""
    if len(numbers) == 1:
        return {numbers[0]: numbers[0]}
    made: dict[int, Tree] = {}
    for part, rest in _parted(numbers):
        for a, left in _made(part).items():
            for b, right in _made(rest).items():
                high, low = ((a, left), (b, right)) if a >= b else ((b, right), (a, left))
                made.setdefault(a + b, ("+", left, right))
                made.setdefault(a * b, ("*", left, right))
                if high[0] > low[0]:
                    made.setdefault(high[0] - low[0], ("-", high[1], low[1]))
                if high[0] % low[0] == 0:
                    made.setdefault(high[0] // low[0], ("/", high[1], low[1]))
    return made
