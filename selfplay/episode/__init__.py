"""The record of an episode: its schema, its form in memory, its digest and its replay."""

from selfplay.episode.batch import from_batch, to_batch
from selfplay.episode.digest import content_digests
from selfplay.episode.random_play import random_episode, refuse_unrecordable
from selfplay.episode.record import NAN, Episode, GameRecord, PolicySpan, Provenance, Step
from selfplay.episode.replay import (
    Moment,
    ReplayDigest,
    ReplayError,
    SeatView,
    advance,
    final_state,
    replay,
    replay_digest,
    replayed,
    seat_view,
)
from selfplay.episode.schema import CHANCE_SEAT, EPISODES, SCHEMA_VERSION, SIMULTANEOUS

__all__ = [
    "CHANCE_SEAT",
    "EPISODES",
    "NAN",
    "SCHEMA_VERSION",
    "SIMULTANEOUS",
    "Episode",
    "GameRecord",
    "Moment",
    "PolicySpan",
    "Provenance",
    "ReplayDigest",
    "ReplayError",
    "SeatView",
    "Step",
    "advance",
    "content_digests",
    "final_state",
    "from_batch",
    "random_episode",
    "refuse_unrecordable",
    "replay",
    "replay_digest",
    "replayed",
    "seat_view",
    "to_batch",
]
