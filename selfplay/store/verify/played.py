"""Whether a game's row agrees with itself: how it ended, what it may teach, when, by whom and from what it was made.

No rules of a game are needed; what the rules say of steps, of the end and of the returns:
`selfplay.store.verify.episode`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from selfplay.contract import ENV_ID
from selfplay.episode import Episode, GameRecord, Provenance
from selfplay.episode.schema import RELATIONS
from selfplay.store.verify.plies import CHANCE, OPENING, OTHER, RANDOM, SEARCH, Plies
from selfplay.store.verify.searched import SearchSettings

#: With which statuses a game may have ended so.
STATUS_OF = {
    "terminal": ("ok",),
    "resignation": ("ok",),
    "ply_limit": ("truncated",),
    "aborted": ("aborted", "timeout", "error", "invalid"),
}
#: The first and the last moment (excluded) at which a game can have begun: 2020 and 2100, microseconds since 1970.
EARLIEST, LATEST = 1_577_836_800_000_000, 4_102_444_800_000_000
_SHA256, _COMMIT, _ORIGIN = r"[0-9a-f]{64}", r"[0-9a-f]{7,64}(-dirty)?", r"[a-z][a-z0-9_.-]{0,39}"


@dataclass(frozen=True)
class Story:
    """What the steps of a row are, in sum. searches, random, openings, others: how many have this source.

    last_seat: of the last step. by_search: whether a search made it.
    """

    searches: int
    random: int
    openings: int
    others: int
    last_seat: int
    by_search: bool


def stories(plies: Plies) -> list[Story]:
    """One a row."""
    rows = len(plies.ends) - 1
    counts = np.bincount(plies.row * 6 + plies.source, minlength=rows * 6).reshape(rows, 6)
    last = plies.ends[1:] - 1
    some = last >= plies.ends[:-1]
    seat = np.where(some, np.append(plies.seat, -9)[last], -9).tolist()
    by_search = (some & (np.append(plies.source, CHANCE)[last] == SEARCH)).tolist()
    kinds = counts[:, [SEARCH, RANDOM, OPENING, OTHER]].tolist()
    return [Story(*kind, *ending) for kind, *ending in zip(kinds, seat, by_search, strict=True)]


def row_lies(head: Episode, record: GameRecord, story: Story, settings: SearchSettings | None) -> str | None:
    """What contradicts itself in the columns of a game, its steps aside; None if nothing does.

    settings: of the run that made it, where they are known.
    """
    return (
        _origin_lies(head.provenance)
        or _time_lies(head)
        or _end_lies(head, record, story)
        or _teaching_lies(head, story)
        or (None if settings is None else _settings_lie(head, record, story, settings))
    )


@lru_cache(maxsize=1024)
def _origin_lies(p: Provenance) -> str | None:
    if not ENV_ID.fullmatch(p.env_id) or p.env_id.rpartition("-v")[2] != str(p.env_version):
        return f"its environment is {p.env_id}, and its version {p.env_version}"
    if p.ruleset_digest is None or not re.fullmatch(_SHA256, p.ruleset_digest):
        return "its ruleset_digest is no sha256"
    if p.config_digest is not None and not re.fullmatch(_SHA256, p.config_digest):  # who has no settings has none
        return "its config_digest is no sha256"
    for name, value in (("licence", p.licence), ("package_version", p.package_version), ("host", p.host)):
        if value is None:
            return f"it has no {name}"
    if p.code_commit is not None and not re.fullmatch(_COMMIT, p.code_commit):
        return "its code_commit is no commit"
    return None if re.fullmatch(_ORIGIN, p.origin) else "its origin is no name"


def _time_lies(head: Episode) -> str | None:
    if head.number < 0 or head.epoch < 0:
        return f"it is number {head.number} of epoch {head.epoch}"
    if not 0 <= head.seed:
        return f"its seed is {head.seed}"
    if not EARLIEST <= head.started_at < LATEST:
        return "it began before 2020 or after 2099"
    if head.wall_ms < 0:
        return f"it took {head.wall_ms} milliseconds"
    for parent, relation in head.parents:
        if relation not in RELATIONS or parent.count("/") != 3:
            return f"its parent {parent!r} is a {relation!r}; known are {', '.join(RELATIONS)}"
    return None


def _end_lies(head: Episode, record: GameRecord, story: Story) -> str | None:
    if head.status not in STATUS_OF[record.ended_by]:
        return f"its status is {head.status}, and it ended by {record.ended_by}"
    if (head.error is not None) != (head.status in ("timeout", "error", "invalid")):
        return f"its status is {head.status}, and {'no error' if head.error is None else 'an error'} is told"
    if head.verdicts is not None:
        return "it has verdicts, and the rules of the game decide"
    if head.seats < 1 or not 0 < record.value_scale < math.inf:
        return "it has no seats, or its unit of values is no number above 0"
    resigned, would = record.resigned_seat, record.would_have_resigned_seat
    if (resigned is not None) != (record.ended_by == "resignation"):
        return "its resigned seat contradicts how it ended"
    if record.ended_by in ("ply_limit", "aborted"):
        if head.returns is not None:
            return "it has returns without an outcome"
    elif head.returns is None or len(head.returns) != head.seats:
        return "it has no return for every seat"
    if record.played_on_after_resignation not in (True, False):
        return "it does not say whether it was played on after a resignation"
    if record.played_on_after_resignation and resigned is not None:
        return "a seat resigned, and the game was to be played on"
    if would is not None and not (record.played_on_after_resignation and 0 <= would < head.seats):
        return f"seat {would} would have resigned, and the game was not played on, or has no such seat"
    if resigned is None:
        return None
    assert head.returns is not None
    if not 0 <= resigned < head.seats or min(head.returns) != head.returns[resigned]:
        return "the seat that resigned did not get the lowest return"
    if story.by_search and story.last_seat != resigned:
        return f"seat {resigned} resigned, and the last move was that of seat {story.last_seat}"
    lost = tuple(-record.value_scale if seat == resigned else record.value_scale for seat in range(2))
    if head.seats == 2 and head.returns != lost:
        return f"seat {resigned} resigned, and its returns are {list(head.returns)}, not {list(lost)}"
    return None


def _teaching_lies(head: Episode, story: Story) -> str | None:
    origin, done = head.provenance.origin, head.status in ("ok", "truncated")
    if head.trainable not in (True, False) or (head.trainable and not done):
        return f"it is marked trainable with status {head.status}"
    if head.trainable and (not story.searches or origin == "evaluation"):
        return "it is marked trainable, and has no search that could be learned from, or is of an evaluation"
    if origin == "self_play" and story.searches and done and not head.trainable:
        return "it is a finished game of self-play, and not marked trainable"
    if origin == "self_play" and story.others:
        return "its origin is self-play, and some of its moves are another's"
    if origin == "random" and story.searches + story.openings + story.others:
        return "its origin is random play, and some of its moves are not"
    if origin in ("human", "solver") and not story.others:
        return f"its origin is {origin}, and nobody such made a move"
    return "it is a game, and its origin a kind of dialogues" if origin in ("cot_rl", "teacher") else None


def _settings_lie(head: Episode, record: GameRecord, story: Story, settings: SearchSettings) -> str | None:
    """What a row contradicts in the configuration of its run."""
    if head.provenance.origin != "self_play" or not story.searches:
        return None
    if not settings.resigns and (record.played_on_after_resignation or record.resigned_seat is not None):
        return "it tells of a resignation, and nobody resigns in its run"
    limit, steps = settings.ply_limit, story.searches + story.openings
    if limit is not None and (steps != limit if record.ended_by == "ply_limit" else steps > limit):
        return f"it ended after {steps} moves, and its run cuts a game after {limit}"
    if settings.opening_plies is not None and story.openings > settings.opening_plies:
        return f"it has {story.openings} opening moves, and its run makes at most {settings.opening_plies}"
    return None
