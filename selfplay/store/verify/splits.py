"""On which side of its task's split a problem is, and what of a dialogue's row must agree with that.

Runs have drawn what is learned from off both sides that are only measured on since there were any: rounds and warm
starts, whatever the schema version of their rows. The recorder itself, which marks rows as trainable, asked about
held-out problems alone until schema version 2: what somebody recorded with it by hand may be of the development split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfplay.environments.task import KEY_DIGITS, Posed, Side, never_trained_on, told_digest
from selfplay.episode import Episode
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.store.verify.spelling import is_digest

#: How a run names the groups of its rounds and its warm start, and of what is measured.
_LEARNED = re.compile(r"r\d{6}-\d{4}|w\d{6}")
_HELD_OUT = re.compile(r"h\d{6}-.+-\d{4}")
_DEVELOPMENT = re.compile(r"d\d{6}-.+-\d{4}")
_OFF = {"training": "to be trained on", "development": "for development", "held_out": "held out for testing"}
#: Rows before this version could be marked as trainable for any problem that is not held out.
_DEVELOPMENT_SINCE = 2


def side_lies(episode: Episode, posed: Posed) -> str | None:
    """What contradicts the side of the problem, as its task has posed it again."""
    record, side = episode.reasoning, posed.side
    assert record is not None
    if episode.trainable and side != "training" and not (side == "development" and unasked(episode)):
        return f"it is marked trainable, and its problem is {_OFF[side]}"
    wanted = _side_of_group(record["group_id"] or "")
    if wanted not in (None, side):
        return f"its group {record['group_id']} is of problems {_OFF[str(wanted)]}, and its problem is {_OFF[side]}"
    may = episode.returns is not None and episode.status in ("ok", "truncated") and side == "training"
    if may and not episode.trainable and episode.provenance.origin != "evaluation":
        return "it is marked as not trainable, and nothing speaks against it"
    return None


def digest_lies(episode: Episode, record: Mapping[str, Any]) -> str | None:
    """What the digest of the problem contradicts, whatever its task is."""
    digest = record["problem_digest"]
    if not is_digest(digest):
        return f"the digest of its problem is {digest!r}, and not 64 hexadecimal digits"
    if never_trained_on(digest):
        if episode.trainable and not unasked(episode):
            return "it is marked trainable, and its problem, by its digest, is held out or for development"
        if _LEARNED.fullmatch(record["group_id"] or ""):
            return f"its group {record['group_id']} is to be learned from, and its problem, by its digest, is not"
    elif _DEVELOPMENT.fullmatch(record["group_id"] or ""):
        return f"its group {record['group_id']} is of problems for development, and its problem, by its digest, is not"
    told = []
    for turn in record["turns"]:
        if turn["role"] == "assistant":
            break
        if turn["role"] != CHANCE_ROLE:
            told.append((turn["role"], turn["text"]))
    if told_digest(told)[KEY_DIGITS:] != digest[KEY_DIGITS:]:
        return "the digest of its problem is not that of what was asked"
    return None


def unasked(episode: Episode) -> bool:
    """Whether nobody asked about the development split when the row was marked as trainable or not."""
    assert episode.reasoning is not None
    by_hand = _LEARNED.fullmatch(episode.reasoning["group_id"] or "") is None
    return episode.schema_version < _DEVELOPMENT_SINCE and by_hand


def untold(episode: Episode, record: Mapping[str, Any]) -> bool:
    """Whether a row may be learned from by its mark, and its problem, by its digest, is on no training side."""
    return episode.trainable and unasked(episode) and never_trained_on(record["problem_digest"])


def _side_of_group(group: str) -> Side | None:
    if _LEARNED.fullmatch(group):
        return "training"
    return "held_out" if _HELD_OUT.fullmatch(group) else "development" if _DEVELOPMENT.fullmatch(group) else None
