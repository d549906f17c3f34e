"""Conversations in Parquet, in the forms that trainers of language models read.

messages           chats with what is known of them; roles are as recorded
prompt-completion  the last answer, and all that its seat saw before it
dpo                pairs of answers to one prompt, see `chat_pairs`
kto                as prompt-completion, with a label: was it accepted

A row is of one seat whose turns carry loss: the chain of parents of its last turn, without other branches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from selfplay.store.export import chat_pairs
from selfplay.store.export.chat_turns import Conversation, answered, conversations, settle
from selfplay.store.export.shards import Shards

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

_CHAT = chat_pairs.CHAT
_SOURCE = [("episode_id", pa.string()), ("seat", pa.int32())]
_ANSWER = [("prompt", _CHAT), ("completion", _CHAT)]
_ABOUT = [
    ("env_id", pa.string()),
    ("status", pa.string()),
    ("reward", pa.float64()),
    ("verdict", pa.string()),
    ("difficulty", pa.float64()),
    ("group_id", pa.string()),
    ("sample_index", pa.int32()),
    ("finish_reason", pa.string()),
]
#: turns: index of each message in its episode. loss: a learner may train on it.
_MESSAGES = [("messages", _CHAT), *_SOURCE, *_ABOUT, ("turns", pa.list_(pa.int32())), ("loss", pa.list_(pa.bool_()))]

Row = dict[str, Any]


def write(job: Job) -> None:
    """Options: see `FORMATS`."""
    if job.format.name == "dpo":
        chat_pairs.write(job)
        return
    schema, row_of = _FORMATS[job.format.name]
    with Shards(job.folder, schema) as shards:
        for chat, found, reasons in conversations(job):
            used = False
            for one in found:
                row = row_of(one)
                if isinstance(row, str):
                    reasons.append(row)
                    continue
                row |= {"episode_id": chat.episode_id, "seat": one.seat}
                job.row(*shards.add(row), chat.episode_id, one.seat)
                used = True
            settle(job, used, reasons)


def _about(one: Conversation) -> Row:
    return {
        "env_id": one.chat.env_id,
        "status": one.chat.status,
        "reward": one.reward,
        "verdict": one.state,
        "difficulty": one.chat.difficulty,
        "group_id": one.chat.group_id,
        "sample_index": one.chat.sample_index,
        "finish_reason": one.turns[-1].finish_reason,
    }


def _messages(one: Conversation) -> Row | str:
    return {"messages": one.messages, **_about(one), "turns": one.path, "loss": [turn.loss for turn in one.turns]}


def _prompt_completion(one: Conversation) -> Row | str:
    answer = answered(one)
    return answer if isinstance(answer, str) else {**answer._asdict(), **_about(one)}


def _kto(one: Conversation) -> Row | str:
    if one.state not in chat_pairs.SIDES:
        return one.state or "not judged"
    answer = answered(one)
    return answer if isinstance(answer, str) else {**answer._asdict(), "label": one.state == "accepted"}


_FORMATS: dict[str, tuple[pa.Schema, Callable[[Conversation], Row | str]]] = {
    "messages": (pa.schema(_MESSAGES), _messages),
    "prompt-completion": (pa.schema([*_ANSWER, *_SOURCE, *_ABOUT]), _prompt_completion),
    "kto": (pa.schema([*_ANSWER, ("label", pa.bool_()), *_SOURCE]), _kto),
}
