"""What a run of reasoning must remember beside policy, optimiser and corpus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainers.run.run_state import RunState


@dataclass
class ReasoningState(RunState):
    """What a reasoning run must remember beside policy, optimiser and corpus; as of the newest checkpoint.

    warm_steps: of the warm start. round: rounds that were learned from.
    cursors: level (as text) -> seed from which the next problem is sought; taken: (level, seed) pairs beyond that were
    asked for already. curriculum, gate: their own states.
    scores: held-out results, as (version, level, right, problems, tokens, elapsed_s) mappings.
    failures: why verification failed -> answers; see `ReasoningStatus`.
    lost_episodes: answers and worked solutions that were asked for and died with a process; they were asked for again.
    in_flight: group -> episodes that were asked for and not archived when this was written; see `RunFolder.amend`.
    since: when the sampling of the rounds that are yet to be learned from began, seconds since 1970: what the archive
    holds of them is not older. warmed: when all episodes to imitate were archived. Both 0 where that is not known.
    """

    warm_steps: int = 0
    round: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    taken: list[list[float]] = field(default_factory=list)
    curriculum: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    lost_episodes: int = 0
    in_flight: dict[str, int] = field(default_factory=dict)
    since: float = 0.0
    warmed: float = 0.0

    def resumed(self) -> None:
        """Rounds that were archived since are learned from again; the archive tells what of `in_flight` was lost."""
