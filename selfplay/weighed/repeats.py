"""Searches made again, with the noise that the seed of their game draws and the weights that they name.

In exact arithmetic a search repeats to the same visits, but for ties: where two moves are as good as equal, rounding
decides, and another batch rounds otherwise. So a search that comes out otherwise is made again `TRIES` times with
numbers moved by as much as rounding may move them (`ROUNDING`); what none of these finds, these weights never found.

In reduced arithmetic single searches prove nothing. There the visits of many are compared: on average they may be as
far from those in float32 as searches in bfloat16 are, `selfplay.weighed.values.ROOM` times, and `APART` at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from selfplay.environments.game import Game
from selfplay.search import BatchedSearch, Evaluate, SearchConfig, SearchResult
from selfplay.weighed.games import Decision
from selfplay.weighed.values import Net

Array = np.ndarray[Any, Any]

TRIES = 24
ROUNDING = 1e-5
APART = 0.05
#: How far values of equal searches may be apart: means of values that each were rounded.
_Q_ERROR = 2e-3
_SLOTS, _CACHE, _NODES = 64, 20_000, 2**16


class Repeater:
    """Searches of one game with one net."""

    def __init__(self, game: Game, net: Net, config: SearchConfig) -> None:
        self._game, self._net, self._config = game, net, config
        self._rng = np.random.default_rng(0)

    def again(self, decisions: Sequence[Decision], dtype: torch.dtype = torch.float32) -> list[SearchResult]:
        """The searches, made again."""

        def evaluate(x: Array) -> tuple[Array, Array]:
            said = self._net.say(x, dtype)
            return said.logits, said.values

        return self._run(decisions, evaluate, _CACHE)

    def ever(self, decision: Decision, value_scale: float) -> bool:
        """Whether rounding can make the search what it is recorded as."""
        for moved in (ROUNDING / 10, ROUNDING):

            def evaluate(x: Array, moved: float = moved) -> tuple[Array, Array]:
                logits, values = self._net(x)
                moves = [np.float32(moved) * self._noise(one.shape) for one in (logits, values)]
                return logits + moves[0], values + moves[1]

            tries = self._run([decision] * (TRIES // 2), evaluate, 0)
            if any(same(decision, result, self._config, value_scale) for result in tries):
                return True
        return False

    def _noise(self, shape: tuple[int, ...]) -> Array:
        """Uniform in [-1, 1], float32."""
        return 2 * self._rng.random(shape, np.float32) - 1

    def _run(self, decisions: Sequence[Decision], evaluate: Evaluate, cache: int) -> list[SearchResult]:
        most = max((one.step.simulations for one in decisions), default=1)
        slots = max(1, min(_SLOTS, len(decisions), _NODES // max(1, most)))
        search = BatchedSearch(self._game, evaluate, self._config, slots, max(1, most), cache)
        results: dict[int, SearchResult] = {}
        waiting = list(enumerate(decisions))[::-1]
        running: dict[int, int] = {}
        while waiting or running:
            for slot in range(slots):
                if slot not in running and waiting:
                    running[slot], one = waiting.pop()
                    search.start(slot, one.state.clone(), one.step.simulations, one.noise)
            for slot in search.tick():
                results[running.pop(slot)] = search.result(slot)
        return [results[i] for i in range(len(decisions))]


def same(decision: Decision, result: SearchResult, config: SearchConfig, value_scale: float) -> bool:
    """Whether a search found what is recorded: visits, values, and where it alone chooses, the move."""
    step = decision.step
    if not np.array_equal(result.visits, step.visits):
        return False
    if config.algorithm == "gumbel" and result.action != step.action:
        return False
    visited = step.visits > 0
    apart = np.abs(result.q[visited] - step.q[visited] / value_scale)
    return bool((apart <= _Q_ERROR).all()) and abs(result.root_value - step.root_value / value_scale) <= _Q_ERROR


def distance(visits: Array, others: Array) -> float:
    """Total variation of two vectors of visits `[K]`, in [0, 1]."""
    a, b = visits / max(1, visits.sum()), others / max(1, others.sum())
    return float(np.abs(a - b).sum()) / 2
