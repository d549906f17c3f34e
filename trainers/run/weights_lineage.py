"""What a learner's weights were made of: the published version that they were trained from, and what was done since.

A learner that died is followed by one that goes on from a checkpoint. The newest version that was published by then may
have had no part in what comes next: so this is kept with the checkpoint, and whoever is restored from it knows its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_KEY = "derivation"


@dataclass(frozen=True)
class Issue:
    """A published version: its number and the digest of its weights, the version that it was trained from, what the
    learner did in between (`trainers.alphazero.provenance`), and by what its sampler drew.

    parent_*: None where that is not known.
    """

    version: int
    digest: str
    parent_version: int | None
    parent_digest: str | None
    events: list[dict[str, Any]]
    sampler: str


@dataclass
class Derivation:
    """version, digest: of the published weights from which training goes on; version 0: the untrained ones; None: not
    known. events: what the learner has done since, see `trainers.alphazero.provenance`."""

    version: int | None
    digest: str | None
    events: list[dict[str, Any]] = field(default_factory=list)

    def published(self, version: int, digest: str, sampler: str) -> Issue:
        """The record of a new version, from which training goes on."""
        issue = Issue(version, digest, self.version, self.digest, self.events, sampler)
        self.version, self.digest, self.events = version, digest, []
        return issue

    def about(self) -> dict[str, Any]:
        """For the description of published weights: where they come from, so that who finds the file knows."""
        return {"parent_version": self.version, "parent_digest": self.digest}

    def kept(self) -> dict[str, Any]:
        """JSON to keep with a checkpoint."""
        return {_KEY: {"version": self.version, "digest": self.digest, "events": self.events}}

    @classmethod
    def from_checkpoint(cls, kept: Mapping[str, Any], state: Mapping[str, Any] | None) -> Derivation:
        """What `kept` was given. Checkpoints of older code hold the version that was the newest then, in the run's
        state, if they hold that, and no events."""
        if _KEY in kept:
            one = kept[_KEY]
            return cls(one["version"], one["digest"], list(one["events"]))
        return cls(state["version"], state["digest"]) if state and state["digest"] else cls(None, None)
