"""The fastest of several ways to do the same, found by trying.

bfloat16 halves what is moved and is multiplied by units of its own where a processor or GPU has them; on some
processors that have them a step takes half as long again as in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

#: A reduced way must be faster than float32 by this factor.
WORTH = 1.1
#: How many passes of each way are timed.
_ROUNDS = 3


class Named(Protocol):
    """A way, a frozen dataclass. us: microseconds a row or token of each way that was tried, by its name."""

    @property
    def name(self) -> str: ...
    @property
    def us(self) -> tuple[tuple[str, float], ...]: ...


Way = TypeVar("Way", bound=Named)


def with_costs(name: str, us: tuple[tuple[str, float], ...], unit: str) -> str:
    costs = dict(us)
    others = "; ".join(f"{other} {_figure(cost)}" for other, cost in us if other != name)
    cost = f", {_figure(costs[name])} µs a {unit}" if name in costs else ""
    return f"{name}{cost}{f' ({others})' if others else ''}"


def _figure(us: float) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.2g}"


def fastest(ways: Sequence[Way], seconds: Callable[[Way], float], count: int) -> Way:
    """The fastest of ways that take turns at the same pass of `count` rows or tokens; the best of some rounds counts.

    Of those that are about as fast, the first.
    """
    best = {way.name: float("inf") for way in ways}
    for way in ways:  # the first pass of a shape prepares what the next ones use
        seconds(way)
    for _ in range(_ROUNDS):
        for way in ways:
            best[way.name] = min(best[way.name], seconds(way))
    us = sorted(((name, 1e6 * cost / count) for name, cost in best.items()), key=lambda item: item[1])
    close = [way for way in ways if best[way.name] <= WORTH * min(best.values())]
    return replace(close[0], us=tuple(us))  # type: ignore[type-var]
