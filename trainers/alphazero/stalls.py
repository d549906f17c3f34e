"""Notices runs of self-play in which nothing is learned, and says why and what helps, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.alphazero.status import Status
from trainers.run.stalls import SELDOM


@dataclass
class GamesStall:
    """Of a run of games: what keeps its net from learning. window_initial: positions before the learner begins; those
    of cheap searches, which it does not learn from, do not count."""

    window_initial: int
    _next: dict[str, float] = field(default_factory=dict)

    def look(self, status: Status, losses: Mapping[str, float], under_way: tuple[int, int]) -> str | None:
        """A sentence where one is due. under_way: (games, moves made in them)."""
        late = max(60.0, 0.25 * status.total_s)
        if any(not math.isfinite(loss) for loss in losses.values()):
            sentence = "the loss is no longer a number: lower the learning rate (learner.lr)"
            return self._once("loss", status, 0.0, sentence)
        if not status.episodes:
            return self._once("games", status, late, f"no game is finished yet: {_so_far(under_way)}. {_QUICKER}")
        loaded = status.window_capacity > 0  # the learner of a resumed run takes a while to load
        if loaded and not status.learner_steps and status.window_rows < self.window_initial:
            missing = (
                f"the learner waits for {self.window_initial:,} positions and has {status.window_rows:,}; "
                "a smaller learner.window_initial lets it begin sooner"
            )
            return self._once("learner", status, late, missing)
        return None

    def _once(self, kind: str, status: Status, least_s: float, sentence: str) -> str | None:
        if status.elapsed_s < max(least_s, self._next.get(kind, 0.0)):
            return None
        self._next[kind] = SELDOM * max(20.0, status.elapsed_s)
        return sentence


_QUICKER = "Quicker: fewer games at once (selfplay.games), a smaller board, fewer simulations; or more --minutes"


def first_games(under_way: tuple[int, int]) -> str:
    """The activity while no game has ended."""
    return f"the first games are under way: {_so_far(under_way)}"


def nothing_finished(elapsed_s: float, under_way: tuple[int, int]) -> str:
    """The last word of a run without a position. under_way: (games, moves made in them) when it ended."""
    so_far = _so_far(under_way)
    return f"no game was finished in {elapsed_s:.0f} s, so there is nothing to learn from: {so_far}. {_QUICKER}"


def _so_far(under_way: tuple[int, int]) -> str:
    games, moves = under_way
    return f"{games:,} games, {moves / max(1, games):.0f} moves each so far"
