"""Hands out weights: actors ask for what is newer than they have, one copy a node lies in the object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Published:
    """A version of the net: its number, the sha256 (hex) of its weights, and a list with the one ObjectRef of them."""

    version: int
    digest: str
    ref: list[Any]


class WeightServer:
    """The newest weights. An actor pulls; nobody waits for it. A restarted server knows nothing until told again."""

    def __init__(self) -> None:
        self._newest: Published | None = None

    def publish(self, published: Published) -> None:
        """Makes this version the newest, unless a newer one is known."""
        if self._newest is None or published.version > self._newest.version:
            self._newest = published

    def newer_than(self, version: int) -> Published | None:
        """The newest version if it is newer than `version`."""
        newest = self._newest
        return newest if newest is not None and newest.version > version else None
