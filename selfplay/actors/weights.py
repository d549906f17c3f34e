"""Hands out weights: actors ask for what is newer than they have, one copy a node lies in the object store.

The copy that the others are made of lies on the learner's node. If that vanishes before an actor has pulled, the actor
reads what the learner wrote to the run's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import ObjectLostError

from selfplay.errors import UserError
from selfplay.nets import weights

Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Published:
    """A version of the net: its number, the sha256 (hex) of its weights, a list with the one ObjectRef of them, and
    where they are written."""

    version: int
    digest: str
    ref: list[Any]
    uri: str

    def fetch(self) -> Tensors:
        """The weights. Raises `UserError` where what is written is something else."""
        try:
            tensors: Tensors = ray.get(self.ref[0])
        except ObjectLostError:
            tensors, meta = weights.load(self.uri)
            if meta["digest"] != self.digest:
                raise UserError(f"{self.uri} is not version {self.version} as it was published") from None
        return tensors


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
