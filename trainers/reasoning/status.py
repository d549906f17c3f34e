"""What a reasoning run tells the person who watches it: plain values, no ray, no torch; the display draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

ReasoningPhase = Literal["starting", "warming", "learning", "draining", "finished"]


@dataclass(frozen=True)
class Score:
    """Greedy answers of a version to held-out problems: share right in [0, 1] with its 95% interval (Wilson).

    level: difficulty; None: over all levels. tokens: mean length of an answer. elapsed_s: when it was measured.
    """

    version: int
    level: float | None
    accuracy: float
    low: float
    high: float
    problems: int
    tokens: float
    elapsed_s: float


@dataclass(frozen=True)
class Sample:
    """A newest sample. reward: None where it could not be verified. reason: of the verdict."""

    prompt: str
    answer: str
    reward: float | None
    reason: str
    difficulty: float
    episode_id: str


@dataclass(frozen=True)
class ReasoningStatus:
    """A reasoning run at one moment. A new one is made each time (`dataclasses.replace`), never changed.

    activity: what goes on besides the phase, "" for nothing; for activity_s by now, of about activity_expected_s.
    elapsed_s, total_s: of the run, warm start and all. algorithm: "grpo", …. parameters: of the policy.
    warm_steps, warm_total: steps of the warm start. rounds: learned from. episodes: archived, solver's and held-out
    ones included. tokens: sampled. version: of the policy.
    reward, length, entropy, mixed_groups, kl_to_start, clip_share, unverifiable, staleness, loss: of the newest round;
      None before it (entropy, KL: nats a token; the shares in [0, 1]). tokens_per_s: while generating.
    lost: episodes that were asked for and died with a process; they were asked for again.
    failures: (why verification failed, answers so far, share of the newest round), such as ("time-out", 12, 0.01).
    history: (elapsed_s, mean reward of the round, mean length in tokens), oldest first.
    scores: newest over all levels first, then a level each; first_scores: of the first measurement.
      score_history: over all levels, oldest first.
    levels: (level, measured solve rate, probability of being drawn). frontier: level of expert iteration, else None.
    development: accuracy on the development split at the newest measurement, None where it is not measured.
    samples: newest, right and wrong. sizing: what was chosen for this machine. messages: newest last.
    choices: ways of training that were chosen by measuring -> each with its cost. cores: of the machine or cluster;
      busy: "generation" (verification included), "learning" -> cores at work, on average over the last seconds.
    """

    recipe: str
    env: str
    out: str
    corpus: str
    algorithm: str = ""
    parameters: int = 0
    phase: ReasoningPhase = "starting"
    activity: str = ""
    activity_s: float = 0.0
    activity_expected_s: float | None = None
    elapsed_s: float = 0.0
    total_s: float = 0.0
    warm_steps: int = 0
    warm_total: int = 0
    rounds: int = 0
    episodes: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    version: int = 0
    loss: float | None = None
    reward: float | None = None
    length: float | None = None
    entropy: float | None = None
    mixed_groups: float | None = None
    kl_to_start: float | None = None
    clip_share: float | None = None
    unverifiable: float | None = None
    lost: int = 0
    failures: tuple[tuple[str, int, float], ...] = ()
    staleness: float | None = None
    history: tuple[tuple[float, float, float], ...] = ()
    scores: tuple[Score, ...] = ()
    first_scores: tuple[Score, ...] = ()
    score_history: tuple[Score, ...] = ()
    development: float | None = None
    levels: tuple[tuple[float, float, float], ...] = ()
    frontier: float | None = None
    samples: tuple[Sample, ...] = ()
    sizing: str = ""
    choices: dict[str, str] = field(default_factory=dict)
    cores: int = 0
    busy: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = field(default=())

    @property
    def cores_at_work(self) -> float:
        """On average over the last seconds."""
        return sum(self.busy.values())


@dataclass(frozen=True)
class ReasoningSummary:
    """How a reasoning run ended. ended_by: "time", "rounds", "target" (accuracy reached) or "interrupted"."""

    run_id: str
    ended_by: Literal["time", "rounds", "target", "interrupted"]
    status: ReasoningStatus

    def to_dict(self) -> dict[str, Any]:
        """For `selfplay run --json`: plain JSON values."""
        return asdict(self)
