"""Episodes in memory: what an actor fills while it plays, and what a reader gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selfplay.episode.schema import ENDINGS, SCHEMA_VERSION, SIMULTANEOUS, STATUSES

Array = np.ndarray[Any, Any]

NAN = float("nan")


def _no_actions() -> Array:
    return np.empty(0, np.int32)


def _no_floats() -> Array:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, with what was weighed before. Values: utility units, point of view of the seat to act.

    seat: who acted; -1 chance, -2 all seats at once.
    action: the action or chance outcome; -1 where all seats moved at once.
    source: "search", "random", "opening", "chance", "human", …
    simulations: of the search; 0 without one. full_search: its result may serve as a policy target.
    actions: `[K]` int32, all legal actions ascending; `[0]` without a search.
    visits: `[K]` int32, simulations through each. prior: `[K]` float32, the net's probabilities without noise.
    q: `[K]` float32, mean values; NaN for actions never visited.
    root_value, raw_value: after the search, by the net alone; NaN without.
    surprise: KL(policy target || prior), nats; NaN without a search.
    joint: one action a seat where all moved at once, else None.
    seat_values: `[seats]` float32, expected return of every seat, where one number is not enough; else None.
    """

    seat: int
    action: int
    source: str
    simulations: int = 0
    full_search: bool = False
    actions: Array = field(default_factory=_no_actions)
    visits: Array = field(default_factory=_no_actions)
    prior: Array = field(default_factory=_no_floats)
    q: Array = field(default_factory=_no_floats)
    root_value: float = NAN
    raw_value: float = NAN
    surprise: float = NAN
    joint: tuple[int, ...] | None = None
    seat_values: Array | None = None


@dataclass(frozen=True, slots=True)
class PolicySpan:
    """Which policy made the steps `first_step` … `last_step` (inclusive) of `seat`.

    digest: sha256 (hex) of its weights, None if it has none. version: 0 before any training.
    """

    seat: int
    first_step: int
    last_step: int
    policy_id: str
    version: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What all episodes of one actor have in common; make it once.

    env_id: with its version, "connect_four-v0". ruleset_digest, config_digest: sha256 (hex).
    code_commit: git commit, None outside a clone. licence: SPDX id. origin: "self_play", "random", "human", …
    """

    run_id: str
    env_id: str
    env_version: int
    ruleset_digest: str
    config_digest: str
    package_version: str
    host: str
    licence: str
    code_commit: str | None = None
    origin: str = "self_play"


@dataclass(frozen=True, slots=True)
class GameRecord:
    """The payload of a game.

    game_string: full OpenSpiel string. value_scale: largest absolute utility, the unit of stored values.
    steps: everything that was done, chance and openings included. replay_digest: `ReplayDigest.hexdigest`.
    ended_by: "terminal", "ply_limit", "resignation" or "aborted".
    played_on_after_resignation: resignation was switched off in this game, to measure its false positives;
      would_have_resigned_seat is then the first seat that fell below the threshold, if any.
    """

    game_string: str
    value_scale: float
    steps: tuple[Step, ...]
    replay_digest: str
    ended_by: str
    resigned_seat: int | None = None
    played_on_after_resignation: bool = False
    would_have_resigned_seat: int | None = None

    def __post_init__(self) -> None:
        if self.ended_by not in ENDINGS:
            raise ValueError(f"ended_by must be one of {', '.join(ENDINGS)}, got {self.ended_by!r}")


@dataclass(frozen=True, slots=True)
class Episode:
    """One sealed episode. Its id names this content for ever: slot, epoch and number are given at sealing.

    seats: how many. returns: `[seats]` utility units, each from its own seat's point of view; None where there was
      no outcome (ply limit, aborted). status: "ok", "truncated", …; trainable: may be learned from.
    started_at: microseconds since 1970, UTC. wall_ms: milliseconds. error: (kind, message) or None.
    parents: (episode id, relation) pairs. Exactly one payload is given. reasoning, control, verdicts: nested plain
      values in the shape of the schema (`selfplay.episode.schema`).
    schema_version, previous_digest: of the row that it was read from. While it is being sealed, `to_batch` links it.
    """

    provenance: Provenance
    slot: str
    epoch: int
    number: int
    status: str
    trainable: bool
    seats: int
    returns: tuple[float, ...] | None
    seed: int
    started_at: int
    wall_ms: int
    policy_spans: tuple[PolicySpan, ...] = ()
    parents: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None
    game: GameRecord | None = None
    reasoning: Mapping[str, Any] | None = None
    control: Mapping[str, Any] | None = None
    verdicts: tuple[Mapping[str, Any], ...] | None = None
    schema_version: int = SCHEMA_VERSION
    previous_digest: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        if [self.game is None, self.reasoning is None, self.control is None].count(False) != 1:
            raise ValueError("an episode has exactly one payload: game, reasoning or control")
        if "/" in self.slot or "/" in self.provenance.run_id:
            raise ValueError("neither run id nor slot may hold a slash")

    @property
    def episode_id(self) -> str:
        return f"{self.provenance.run_id}/{self.slot}/{self.epoch}/{self.number}"

    @property
    def kind(self) -> str:
        return "game" if self.game is not None else "reasoning" if self.reasoning is not None else "control"

    @property
    def n_steps(self) -> int:
        """Steps of a game or of control, turns of reasoning."""
        if self.game is not None:
            return len(self.game.steps)
        if self.reasoning is not None:
            return len(self.reasoning["turns"])
        assert self.control is not None
        return len(self.control["rewards"])

    @property
    def decisions(self) -> int:
        """Steps of a game at which seats, not chance, acted."""
        return sum(step.seat >= 0 or step.seat == SIMULTANEOUS for step in self.game.steps) if self.game else 0
