"""A net's opinion averaged over the images of a position under the symmetries of its game."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from selfplay.contract import Symmetry

Array = np.ndarray[Any, Any]


class Averaged:
    """Evaluates each position together with its images and averages: logits and value, each in the position's terms.

    AlphaGo Zero (Silver et al. 2017, Methods) draws one image at random for each evaluation; the average over a fixed
    few has less error than any one of them, and repeats. It costs 1 + len(symmetries) evaluations a position.
    """

    def __init__(self, evaluate: Callable[[Array], tuple[Array, Array]], symmetries: Sequence[Symmetry]) -> None:
        """symmetries: of the game, without the identity; they must hold for the net's input (`Encoder.symmetries`)."""
        self._evaluate = evaluate
        self._symmetries = tuple(symmetries)
        self._actions = [np.array(symmetry.actions) for symmetry in symmetries]

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """x: `[B, *input_shape]`; returns logits `[B, A]` and values `[B]` in [-1, 1], seat to act's point of view."""
        images = [symmetry.observation(x) for symmetry in self._symmetries]
        logits, values = self._evaluate(np.concatenate([x, *images]))
        parts = logits.reshape(1 + len(images), len(x), -1)
        total = parts[0]
        for actions, part in zip(self._actions, parts[1:], strict=True):
            total = total + part[:, actions]
        return total / len(parts), values.reshape(len(parts), len(x)).mean(0)
