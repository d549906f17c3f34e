"""Pairs of an accepted and a rejected answer to one prompt: the same run, group and seat, the prompts equal.

The members of a group may lie far apart in the corpus. So all are read once: their texts go to a file that has no
name, their keys stay in memory, and pairs are put together at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa

from selfplay.errors import UserError
from selfplay.store.export.chat_turns import Message, answered, conversations, settle
from selfplay.store.export.shards import Shards

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

#: Verdicts that say something of an answer; the better one first.
SIDES = ("accepted", "rejected")
PAIRS = 4
CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [
        *[(name, CHAT) for name in ("prompt", "chosen", "rejected")],
        *[(name, pa.string()) for name in ("chosen_id", "rejected_id", "group_id")],
        ("seat", pa.int32()),
    ]
)

T = TypeVar("T")


class _Place(NamedTuple):
    """Where a text lies."""

    start: int
    length: int


class _Sample(NamedTuple):
    episode_id: str
    completion: _Place


@dataclass
class _Bucket:
    """The answers of one seat to one prompt of one group, by verdict."""

    seat: int
    prompt: _Place
    sides: dict[str, list[_Sample]] = field(default_factory=lambda: {side: [] for side in SIDES})


#: By run and group, then by seat and digest of the prompt.
_Groups = dict[tuple[str, str], dict[tuple[int, bytes], _Bucket]]


def write(job: Job) -> None:
    """Option pairs: at most so many of each group. Order: by the first member of the group."""
    given = job.options.get("pairs", str(PAIRS))
    if not given.isdecimal() or not int(given):
        raise UserError(f"option pairs must be a whole number of at least 1, not {given!r}")
    groups: _Groups = {}
    reasons: dict[str, list[str]] = {}
    used: set[str] = set()
    with tempfile.TemporaryFile(dir=job.folder.parent) as texts, Shards(job.folder, _SCHEMA) as shards:
        _collect(job, texts, groups, reasons)
        for (_, group_id), found in groups.items():
            buckets = list(found.values())
            sides = [tuple([(bucket, sample) for sample in bucket.sides[side]] for side in SIDES) for bucket in buckets]
            for (bucket, chosen), (_, rejected) in pairs(sides, int(given)):
                row = {
                    "prompt": _text(texts, bucket.prompt),
                    "chosen": _text(texts, chosen.completion),
                    "rejected": _text(texts, rejected.completion),
                    **{"chosen_id": chosen.episode_id, "rejected_id": rejected.episode_id},
                    **{"group_id": group_id, "seat": bucket.seat},
                }
                place = shards.add(row)
                for sample in (chosen, rejected):
                    job.row(*place, sample.episode_id, bucket.seat)
                    used.add(sample.episode_id)
            for bucket in buckets:
                _explain(bucket, used, reasons)
    for episode_id, said in reasons.items():
        settle(job, episode_id in used, said)


def pairs(buckets: Sequence[Sequence[Sequence[T]]], cap: int) -> list[tuple[T, T]]:
    """At most `cap` pairs of accepted and rejected, no pair twice. buckets: accepted and rejected ones of each.

    Buckets take turns. Of those of one side of a bucket none is in two pairs more than another.
    """
    each = [_crossed(accepted, rejected) for accepted, rejected in buckets]
    return list(islice((pair for turn in zip_longest(*each) for pair in turn if pair is not None), cap))


def _crossed(one: Sequence[T], other: Sequence[T]) -> Iterator[tuple[T, T]]:
    """All pairs. Both go round; after each common round one side moves on by one, so that no pair comes again."""
    if not one or not other:
        return
    around = math.lcm(len(one), len(other))
    for i in range(len(one) * len(other)):
        yield one[i % len(one)], other[(i + i // around) % len(other)]


def _collect(job: Job, texts: IO[bytes], groups: _Groups, reasons: dict[str, list[str]]) -> None:
    for chat, found, said in conversations(job):
        held = False
        for one in found:
            answer = answered(one)
            if one.state not in SIDES:
                said.append(one.state or "not judged")
            elif chat.group_id is None:
                said.append("in no group")
            elif isinstance(answer, str):
                said.append(answer)
            else:
                prompt = _packed(answer.prompt)
                buckets = groups.setdefault((chat.run_id, chat.group_id), {})
                key = one.seat, hashlib.sha256(prompt).digest()
                if key not in buckets:
                    buckets[key] = _Bucket(one.seat, _put(texts, prompt))
                sample = _Sample(chat.episode_id, _put(texts, _packed(answer.completion)))
                buckets[key].sides[one.state].append(sample)
                held = True
        if held:
            reasons[chat.episode_id] = said
        else:
            settle(job, False, said)


def _explain(bucket: _Bucket, used: set[str], reasons: dict[str, list[str]]) -> None:
    for side, other in (SIDES, SIDES[::-1]):
        for sample in bucket.sides[side]:
            if not bucket.sides[other]:
                reasons[sample.episode_id].append(f"no {other} answer to the same prompt in its group")
            elif sample.episode_id not in used:
                reasons[sample.episode_id].append("its group has all its pairs without it")


def _packed(messages: list[Message]) -> bytes:
    return json.dumps(messages, ensure_ascii=False).encode()


def _put(texts: IO[bytes], text: bytes) -> _Place:
    place = _Place(texts.tell(), len(text))
    texts.write(text)
    return place


def _text(texts: IO[bytes], place: _Place) -> list[Message]:
    texts.seek(place.start)
    messages: list[Message] = json.loads(texts.read(place.length))
    return messages
