"""What an answer is: a value, a list, a set, a pair or interval, an equation, a matrix, words."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.answers.tree import Node


@dataclass(frozen=True)
class Quantity:
    """An expression and its unit, "" where it has none."""

    node: Node
    unit: str = ""


@dataclass(frozen=True)
class Infinite:
    """sign: 1, -1, or 0 for both."""

    sign: int


@dataclass(frozen=True)
class Words:
    """Text without case: "east"; a number in a base: "101 in base 2"; a ratio."""

    text: str


@dataclass(frozen=True)
class Group:
    """Items in brackets: a point, an interval, a vector. opens, closes: "(", "[", "<" and so on."""

    opens: str
    items: tuple[Shape, ...]
    closes: str


@dataclass(frozen=True)
class Collection:
    """Values without order. kind: "list", each as often as it stands there, or "set"."""

    kind: str
    items: tuple[Shape, ...]


@dataclass(frozen=True)
class Labelled:
    """A name and what it is: x = 3; names: more than one for (x,y) = (1,2)."""

    names: tuple[str, ...]
    body: Shape


@dataclass(frozen=True)
class Relation:
    """Sides with signs between them: = < > le ge ne; several signs for a chain."""

    sides: tuple[Shape, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """Sets or conditions. kind: "union" (or), "intersection" (and) or "difference"."""

    kind: str
    parts: tuple[Shape, ...]


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Shape, ...], ...]


Shape = Quantity | Infinite | Words | Group | Collection | Labelled | Relation | Joined | Matrix
REALS = Group("(", (Infinite(-1), Infinite(1)), ")")


def units_of(found: Shape) -> frozenset[str]:
    """The units and words after numbers anywhere in it."""
    if isinstance(found, Quantity):
        return frozenset({found.unit})
    parts: tuple[Shape, ...] = ()
    if isinstance(found, Group | Collection):
        parts = found.items
    elif isinstance(found, Labelled):
        parts = (found.body,)
    elif isinstance(found, Relation):
        parts = found.sides
    elif isinstance(found, Joined):
        parts = found.parts
    elif isinstance(found, Matrix):
        parts = sum(found.rows, ())
    return frozenset[str]().union(*(units_of(part) for part in parts))
