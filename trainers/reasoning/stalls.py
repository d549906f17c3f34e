"""Notices runs of reasoning in which nothing is learned, and says why and what helps, in one sentence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.run.stalls import Reminder

if TYPE_CHECKING:
    from selfplay.actors.reasoner import Outcome


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
    how = ALGORITHMS[algorithm]
    if how.follows == "imitate":
        return any(outcome.state == "accepted" for outcome in outcomes)
    groups: dict[str, set[float]] = {}
    for outcome in outcomes:
        if outcome.reward is not None:
            name = outcome.group if how.compares == "group" else ""
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
