"""Histories that grow with a run's age and must fit in a file that is written every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

#: A history has at most twice as many entries of each kind.
MOST = 500
_Row = TypeVar("_Row")


def thinned(rows: list[_Row], kind: Callable[[_Row], Hashable], group: Callable[[_Row], Hashable]) -> list[_Row]:
    """The rows, oldest first, without every other group of the older half of each kind that has grown too long.

    group: of rows that belong together, such as those of one version; within it all stay or all go. The first group of
    a kind stays, and so do the newest ones. So a history of any length is coarse at its beginning and fine at its end.
    """
    groups: dict[Hashable, dict[Hashable, None]] = {}
    for row in rows:
        groups.setdefault(kind(row), {})[group(row)] = None
    gone = {(of, one) for of, found in groups.items() if len(found) > 2 * MOST for one in list(found)[1:MOST:2]}
    return [row for row in rows if (kind(row), group(row)) not in gone] if gone else rows
