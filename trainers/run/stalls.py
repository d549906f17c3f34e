"""Notices runs in which nothing is learned, and says why and what helps, in one sentence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainers.alphazero.status import Status

if TYPE_CHECKING:
    from selfplay.actors.reasoner import Outcome

#: Rounds in a row without anything to learn from before it is said.
_PATIENCE = 3
#: It is said again after this many times as many rounds.
_SELDOM = 3


@dataclass
class Reminder:
    """When to say what stays true: after `patience` times in a row, then ever more seldom."""

    patience: int = _PATIENCE
    times: int = 0
    _next: int = 0

    def due(self, stalled: bool) -> bool:
        """stalled: whether it is still true."""
        if not stalled:
            self.times = self._next = 0
            return False
        self.times += 1
        if self.times < max(self.patience, self._next):
            return False
        self._next = self.times * _SELDOM
        return True


@dataclass
class RoundStall:
    """Of the rounds of a reasoning run, those in a row that taught nothing. algorithm: of the learner."""

    algorithm: str
    _reminder: Reminder = field(default_factory=Reminder)
    _outcomes: list[Outcome] = field(default_factory=list)

    def look(self, outcomes: Sequence[Outcome], loss: float | None, example: str) -> str | None:
        """A sentence where one is due after this round. example: an answer that was not accepted, or ""."""
        broken = loss is not None and not math.isfinite(loss)
        stalled = bool(outcomes) and (broken or not teaches(self.algorithm, outcomes))
        self._outcomes = [*self._outcomes, *outcomes][-4096:] if stalled else []
        if not self._reminder.due(stalled):
            return None
        if broken:
            return f"the loss has not been a number for {self._reminder.times} rounds: lower the learning rate"
        return f"nothing to learn in the last {self._reminder.times} rounds: {explanation(self._outcomes, example)}"


def teaches(algorithm: str, outcomes: Sequence[Outcome]) -> bool:
    """Whether a round's answers say which way to go.

    Expert iteration imitates what was accepted. PPO compares answers with each other, GRPO and RLOO those to the same
    problem: where all rewards are equal, every advantage is 0.
    """
    if algorithm == "expert":
        return any(outcome.state == "accepted" for outcome in outcomes)
    groups: dict[str, set[float]] = {}
    for outcome in outcomes:
        if outcome.reward is not None:
            name = outcome.group if algorithm in ("grpo", "rloo") else ""
            groups.setdefault(name, set()).add(outcome.reward)
    return any(len(rewards) > 1 for rewards in groups.values())


def explanation(outcomes: Sequence[Outcome], example: str) -> str:
    """Why these outcomes teach nothing: the three commonest reasons, an example and what helps."""
    if all(outcome.state == "accepted" for outcome in outcomes):
        return "every answer is right; harder problems would teach more (task.difficulties)"
    refused = [outcome for outcome in outcomes if outcome.state != "accepted"]
    unverifiable = sum(outcome.state == "unverifiable" for outcome in refused)
    rewards = {outcome.reward for outcome in outcomes if outcome.reward is not None}
    if not rewards:
        why = "no answer could be verified"
    elif len(rewards) == 1:
        why = f"every answer has the reward {rewards.pop():g}"
    elif not any(outcome.state == "accepted" for outcome in outcomes):
        why = "no answer was accepted"
    else:
        why = "all answers to the same problem have equal rewards"
    kinds = Counter(_kind(outcome.reason) for outcome in refused if outcome.reason)
    common = "; ".join(f"{number / len(refused):.0%}: {kind}" for kind, number in kinds.most_common(3))
    parts = [why + (f" ({common})" if common else "")]
    if example:
        parts.append(f"an answer: “{_short(example, 120)}”")
    if unverifiable > len(refused) / 2:
        parts.append("what helps: a verifier that judges every answer (`selfplay check-env`)")
    else:
        parts.append("what helps: an easier level (task.difficulties), a warm start (warm.episodes), another format")
    return ". ".join(parts)


def _kind(reason: str) -> str:
    """A reason without what differs from answer to answer: quoted text and numbers."""
    return _short(re.sub(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?", "…", reason), 80)


def _short(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


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
        self._next[kind] = _SELDOM * max(20.0, status.elapsed_s)
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
