"""Reasoning episodes as conversations. Of their turns only the texts are unpacked, never the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.schema import CHANCE_ROLE
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

ROLES = ("system", "user", "assistant", "tool")
_ENVELOPE = ("episode_id", "run_id", "env_id", "status", "trainable", "verdicts")
_PAYLOAD = ("difficulty", "group_id", "sample_index")

Message = dict[str, str]


class Turn(NamedTuple):
    """A turn without its tokens. loss: a learner may train on some of them."""

    seat: int
    role: str
    parent: int | None
    finish_reason: str | None
    text: str | None
    loss: bool


@dataclass(frozen=True, slots=True)
class Chat:
    """A reasoning episode without its tokens."""

    episode_id: str
    run_id: str
    env_id: str
    status: str
    trainable: bool
    verdicts: Sequence[Mapping[str, Any]] | None
    difficulty: float | None
    group_id: str | None
    sample_index: int | None
    turns: Sequence[Turn]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one seat saw and wrote up to its last turn.

    path: indices of the turns on the chain of parents. state: accepted, rejected, unverifiable; None: not judged.
    """

    chat: Chat
    seat: int
    path: Sequence[int]
    state: str | None
    reward: float | None

    @property
    def turns(self) -> list[Turn]:
        return [self.chat.turns[index] for index in self.path]

    @property
    def messages(self) -> list[Message]:
        return [{"role": turn.role, "content": turn.text or ""} for turn in self.turns]


class Answer(NamedTuple):
    """A conversation cut before the last answer of its seat."""

    prompt: list[Message]
    completion: list[Message]


def conversations(job: Job) -> Iterator[tuple[Chat, list[Conversation], list[str]]]:
    """Episodes with a conversation a seat that may be learned from, and why others have none.

    Episodes without any are left out here. Options: untrainable=keep, accepted=only.
    """
    keep, only = _chosen(job, "untrainable", "keep"), _chosen(job, "accepted", "only")
    for batch in job.batches([*_ENVELOPE, "reasoning"]):
        for chat in read(batch):
            if not (chat.trainable or keep):
                job.leave_out("not trainable")
                continue
            found, reasons = _heard(chat)
            if only:
                reasons += ["not accepted" for one in found if one.state != "accepted"]
                found = [one for one in found if one.state == "accepted"]
            if found:
                yield chat, found, reasons
            else:
                settle(job, False, reasons)


def settle(job: Job, used: bool, reasons: Sequence[str]) -> None:
    """Says once what of an episode was left out. used: there is a row of another of its seats."""
    for reason in dict.fromkeys(reasons if used else reasons[:1]):
        job.leave_out(f"in part: {reason}" if used else reason)


def answered(one: Conversation) -> Answer | str:
    """Prompt and last answer, or why there is none."""
    turns, messages = one.turns, one.messages
    mine = [at for at, turn in enumerate(turns) if turn.role == "assistant" and turn.seat == one.seat]
    if not mine or not turns[mine[-1]].loss:
        return "the last answer carries no loss"
    if not mine[-1]:
        return "no turn with the prompt"
    return Answer(messages[: mine[-1]], [messages[mine[-1]]])


def broken(turns: Sequence[Any]) -> str | None:
    """Why turns, pairs of role and parent, are no conversation."""
    for index, (role, parent) in enumerate(turns):
        if role not in (*ROLES, CHANCE_ROLE):
            return f"a turn whose role is none of {', '.join(ROLES)}"
        if parent is not None and not 0 <= parent < index:
            return "a turn whose parent is no earlier turn"
    return None


def read(batch: pa.RecordBatch) -> Iterator[Chat]:
    """The episodes of rows with the columns asked for in `conversations`."""
    rows = [batch.column(name).to_pylist() for name in _ENVELOPE]
    payload = _fields(batch.column("reasoning"))
    rows += [payload[name].to_pylist() for name in _PAYLOAD]
    turns, ends = _turns(payload["turns"].flatten()), _ends(payload["turns"])
    for row, values in enumerate(zip(*rows, strict=True)):
        plain: dict[str, Any] = dict(zip((*_ENVELOPE, *_PAYLOAD), values, strict=True))
        yield Chat(**plain, turns=turns[ends[row] : ends[row + 1]])


def _turns(turns: pa.StructArray) -> list[Turn]:
    columns = _fields(turns)
    mask = np.asarray(columns["loss_mask"].flatten().fill_null(False).to_numpy(zero_copy_only=False), bool)
    ends = _ends(columns["loss_mask"])
    before = np.concatenate([[0], np.cumsum(mask)])[ends]
    plain = [columns[name].to_pylist() for name in Turn._fields[:-1]]
    return [Turn(*values) for values in zip(*plain, (np.diff(before) > 0).tolist(), strict=True)]


def _fields(structs: pa.StructArray) -> dict[str, pa.Array]:
    return dict(zip([one.name for one in structs.type], structs.flatten(), strict=True))


def _ends(lists: pa.ListArray) -> np.ndarray[Any, Any]:
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)
    return np.concatenate([[0], np.cumsum(lengths)])


def _heard(chat: Chat) -> tuple[list[Conversation], list[str]]:
    """A conversation a seat whose turns carry loss, and why others have none."""
    wrong = broken([(turn.role, turn.parent) for turn in chat.turns])
    if wrong is not None:
        return [], [wrong]
    seats = sorted({turn.seat for turn in chat.turns if turn.loss})
    found = [_conversation(chat, seat) for seat in seats]
    reasons = [one for one in found if isinstance(one, str)] if seats else ["no turn carries loss"]
    return [one for one in found if isinstance(one, Conversation)], reasons


def _conversation(chat: Chat, seat: int) -> Conversation | str:
    at: int | None = max(index for index, turn in enumerate(chat.turns) if turn.seat == seat)
    path: list[int] = []
    while at is not None:
        path.append(at)
        at = chat.turns[at].parent
    path.reverse()
    if any(chat.turns[index].text is None for index in path):
        return "a turn without text"
    mine = [verdict for verdict in chat.verdicts or () if verdict["seat"] == seat]
    if len(mine) > 1:
        return "several verdicts for one seat"
    state, reward = (mine[0]["state"], mine[0]["reward"]) if mine else (None, None)
    if mine and (mine[0]["error"] is not None or reward is None):
        state, reward = "unverifiable", None  # a verifier that failed has said nothing
    return Conversation(chat, seat, path, state, reward)


def _chosen(job: Job, option: str, value: str) -> bool:
    given = job.options.get(option)
    if given not in (None, value):
        raise UserError(f"option {option} of format {job.format.name} can only be {value!r}, not {given!r}")
    return given == value
