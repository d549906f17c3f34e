"""What a run must remember beside net, optimiser and corpus, of either kind of run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from selfplay.errors import Damaged

#: Rises when older code would misread state or `run.json`.
SCHEMA = 3
_CHECKPOINT = re.compile(r"[A-Za-z0-9-]+\.safetensors")


@dataclass
class State:
    """What a run must remember beside net, optimiser and corpus.

    checkpoint: name below `checkpoints/`, None before the first. version: newest published.
    total_s, elapsed_s: of the present plan; a plan that was cut short is finished before a new one begins.
    matches: results of matches, as (version, opponent, wins, draws, losses, cut, elapsed_s, simulations) mappings.
    exact: results against exact play, as (version, label, mistakes, positions) mappings; see
      `trainers.alphazero.exact_results`.
    lost_games, lost_plies: games that died with their process.
    games_in_flight, plies_in_flight: not sealed when this was saved; lost, if nothing was saved after it.
    """

    schema: int = SCHEMA
    checkpoint: str | None = None
    version: int = -1
    digest: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
    matches: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)
    lost_games: int = 0
    lost_plies: int = 0
    games_in_flight: int = 0
    plies_in_flight: int = 0
    wandb_id: str | None = None

    def resumed(self) -> None:
        """What was under way when this was saved is lost."""
        self.lost_games += self.games_in_flight
        self.lost_plies += self.plies_in_flight
        self.games_in_flight = self.plies_in_flight = 0


@dataclass
class ReasoningState:
    """What a reasoning run must remember beside policy, optimiser and corpus; as of the newest checkpoint.

    checkpoint, version, digest, total_s, elapsed_s, wandb_id: as in `State`.
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

    schema: int = SCHEMA
    checkpoint: str | None = None
    version: int = -1
    digest: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
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
    wandb_id: str | None = None

    def resumed(self) -> None:
        """Rounds that were archived since are learned from again; the archive tells what of `in_flight` was lost."""


AnyState = TypeVar("AnyState", bound=State | ReasoningState)


def state_from(kind: type[AnyState], data: Mapping[str, Any], source: str) -> AnyState:
    """A state as it was written; `source` names the place in errors.

    Raises `Damaged` for fields that are unknown or of another type, for numbers that are none, and for a checkpoint
    that is not a file's name: a path would lead out of the run's folder.
    """
    unknown = sorted(set(data) - {known.name for known in fields(kind)})
    if unknown:
        raise Damaged(source, f"it has the unknown field {unknown[0]!r}")
    try:
        state = TypeAdapter(kind).validate_python({**data, "schema": SCHEMA})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise Damaged(source, f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].lower()}") from None
    if state.checkpoint is not None and not _CHECKPOINT.fullmatch(state.checkpoint):
        raise Damaged(source, f"checkpoint: {state.checkpoint!r} is not the name of one")
    if not (math.isfinite(state.elapsed_s) and math.isfinite(state.total_s)):
        raise Damaged(source, "elapsed_s, total_s: input should be a finite number")
    return state
