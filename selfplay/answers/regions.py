"""Sets of real numbers, as intervals, unions and inequalities: the same if they have the same members.

Between and at the ends that both name, membership does not change, so a number in each gap and each end are enough.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from selfplay.answers import values
from selfplay.answers.shapes import Collection, Group, Infinite, Joined, Labelled, Quantity, Relation, Shape
from selfplay.answers.tree import Node
from selfplay.answers.values import Value


class _NoRegion(ValueError):
    """It is no set of real numbers with ends that are known."""


def same_region(one: Shape, other: Shape) -> bool | None:
    """Whether both are the same set of real numbers; None where either cannot be read as one."""
    one, other = _without_bars(one), _without_bars(other)
    try:
        variables = _variables(one) | _variables(other)
        if len(variables) > 1:
            return None
        ends = _sorted([*_ends(one), *_ends(other)])
        return all(_contains(one, at) == _contains(other, at) for at in _samples(ends))
    except _NoRegion:
        return None


def _without_bars(found: Shape) -> Shape:
    """|x - a| < c as a - c < x < a + c, and |x - a| > c as x < a - c or x > a + c, also within sets and conditions."""
    if isinstance(found, Labelled):
        return Labelled(found.names, _without_bars(found.body))
    if isinstance(found, Joined):
        return Joined(found.kind, tuple(map(_without_bars, found.parts)))
    if not isinstance(found, Relation) or len(found.signs) != 1 or found.signs[0] in ("=", "ne"):
        return found
    (left, right), sign = found.sides, found.signs[0]
    if sign in (">", "ge"):
        left, right, sign = right, left, {">": "<", "ge": "le"}[sign]
    inside = sign in ("<", "le")
    for bars, end, outside in ((left, right, False), (right, left, True)):
        if not isinstance(bars, Quantity) or not isinstance(end, Quantity) or bars.unit or end.unit:
            return found
        if bars.node.kind == "call" and bars.node.name == "abs" and not values.symbols(end.node) and inside:
            middle = _middle(bars.node.parts[0])
            if middle is None:
                return found
            name, away = Quantity(middle[0]), Node("negative", (middle[1],))
            low = Quantity(Node("sum", (away, Node("negative", (end.node,)))))
            high = Quantity(Node("sum", (away, end.node)))
            if outside:
                return Joined("union", (Relation((name, low), (sign,)), Relation((high, name), (sign,))))
            return Relation((low, name, high), (sign, sign))
    return found


def _middle(node: Node) -> tuple[Node, Node] | None:
    """x and a of x + a; None for anything else."""
    if node.kind == "symbol":
        return node, Node("number", value=Fraction(0))
    if node.kind != "sum" or node.parts[0].kind != "symbol" or values.symbols(*node.parts[1:]):
        return None
    return node.parts[0], Node("sum", node.parts[1:])


def _variables(found: Shape) -> set[str]:
    if isinstance(found, Relation):
        names = {name for side in found.sides if isinstance(side, Quantity) for name in values.symbols(side.node)}
        if not names:
            raise _NoRegion
        return names
    if isinstance(found, Joined):
        return {name for part in found.parts for name in _variables(part)}
    return set(found.names) if isinstance(found, Labelled) else set()


def _is_variable(found: Shape) -> bool:
    return isinstance(found, Quantity) and found.node.kind == "symbol" and not found.unit


def _end(found: Shape) -> Value | None:
    """A real number; None for an infinity."""
    if isinstance(found, Infinite) and found.sign:
        return None
    if not isinstance(found, Quantity) or found.unit:
        raise _NoRegion
    value = values.constant(found.node)
    if value is None or values.less(value, Fraction(0)) is None:
        raise _NoRegion
    return value


def _ends(found: Shape) -> list[Value]:
    """All finite ends. Raises `_NoRegion`."""
    if isinstance(found, Labelled):
        return _ends(found.body)
    if isinstance(found, Joined):
        return [end for part in found.parts for end in _ends(part)]
    if isinstance(found, Relation):
        if not any(_is_variable(side) for side in found.sides) or "=" in found.signs:
            raise _NoRegion
        sides = [side for side in found.sides if not _is_variable(side)]
    elif isinstance(found, Group):
        if len(found.items) != 2 or found.opens not in "([" or found.closes not in ")]":
            raise _NoRegion
        if _end(found.items[0]) is None and _below(found.items[0], Fraction(0)) is False:
            raise _NoRegion
        sides = list(found.items)
    elif isinstance(found, Collection) and found.kind == "set":
        sides = list(found.items)
    else:
        raise _NoRegion
    return [end for side in sides if (end := _end(side)) is not None]


def _sorted(ends: list[Value]) -> list[Value]:
    found: list[Value] = []
    for end in ends:
        place = next((i for i, other in enumerate(found) if not values.less(other, end)), len(found))
        if place == len(found) or not values.equal(found[place], end):
            found.insert(place, end)
    return found


def _samples(ends: list[Value]) -> list[Value]:
    if not ends:
        return [Fraction(0)]
    half = Fraction(1, 2)
    between = [_plus(one, other, half) for one, other in pairwise(ends)]
    return [*ends, *between, _plus(ends[0], ends[0], half, -1), _plus(ends[-1], ends[-1], half, 1)]


def _plus(one: Value, other: Value, factor: Fraction, more: int = 0) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return (one + other) * factor + more
    return (values.real(one) + values.real(other)) / 2 + more


def _below(found: Shape, at: Value) -> bool:
    """Whether the end is below this number."""
    if isinstance(found, Infinite):
        return found.sign < 0
    end = _end(found)
    return bool(values.less(end, at))


def _at(found: Shape, at: Value) -> bool:
    return not isinstance(found, Infinite) and values.equal(_end(found), at)


def _contains(found: Shape, at: Value) -> bool:
    if isinstance(found, Labelled):
        return _contains(found.body, at)
    if isinstance(found, Joined):
        members = [_contains(part, at) for part in found.parts]
        if found.kind == "difference":
            return members[0] and not members[1]
        return any(members) if found.kind == "union" else all(members)
    if isinstance(found, Collection):
        return any(_at(item, at) for item in found.items)
    if isinstance(found, Group):
        low, high = found.items
        above = _below(low, at) or (found.opens == "[" and _at(low, at))
        under = not (_below(high, at) or _at(high, at)) or (found.closes == "]" and _at(high, at))
        return above and under
    assert isinstance(found, Relation)
    pairs = zip(pairwise(found.sides), found.signs, strict=True)
    return all(_holds(left, sign, right, at) for (left, right), sign in pairs)


def _holds(left: Shape, sign: str, right: Shape, at: Value) -> bool:
    """Whether the relation holds where the variable is `at`."""
    if sign in (">", "ge"):
        left, right, sign = right, left, {">": "<", "ge": "le"}[sign]
    if _is_variable(left) == _is_variable(right):
        if _is_variable(left) or isinstance(left, Infinite) or isinstance(right, Infinite):
            raise _NoRegion
        equal, below = values.equal(_end(left), _end(right)), _below(left, _end(right))
    elif _is_variable(right):
        equal, below = _at(left, at), _below(left, at)
    else:
        equal = _at(right, at)
        below = not equal and not _below(right, at)
    return {"<": below, "le": below or equal, "ne": not equal}[sign]
