"""Dialogues of policies with a task, from the problem to the sealed episode.

Each seat has a line of tokens of its own: what it was told and what it wrote, never tokenised again. What was said is
stored turn by turn; a turn's tokens follow those of its parent, so a line is a chain of turns. The choice of the
problem is a turn of chance, before all others, with its probability.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfplay.contract import Message, Transcript, Turn, Verdict
from selfplay.episode import CHANCE_SEAT, Episode, PolicySpan, Provenance
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.errors import UserError
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.engine import Completion, Engine, Request
from selfplay.rollout.sampling import Sampling
from selfplay.task import Posed, Task


@dataclass(frozen=True)
class Assignment:
    """One dialogue that is wanted.

    group: samples of one problem drawn together share it; index: place in the group. chance: of the problem among all
    that could have been chosen, as the chooser saw it; None: it was not chosen by chance.
    """

    posed: Posed
    group: str
    index: int
    chance: float | None = None


@dataclass(frozen=True)
class Speaker:
    """Who answers for a seat. policy_id, digest: as stored; the engine knows its version."""

    engine: Engine
    tokenizer: Tokenizer
    policy_id: str
    digest: str | None
    context: int
    learns: bool = True


@dataclass
class _Line:
    """What a seat has before it: tokens, the turn that they end with, and whether that has its end token."""

    ids: list[int] = field(default_factory=list)
    parent: int | None = None
    ended: bool = True


class Recorder:
    """Seals episodes of one writer: numbers them, and knows what they have in common."""

    def __init__(self, provenance: Provenance, slot: str, epoch: int, task: Task, first_number: int = 0) -> None:
        self.provenance, self.slot, self.epoch, self.number = provenance, slot, epoch, first_number
        self.task = task

    def seal(
        self,
        work: Assignment,
        turns: Sequence[Mapping[str, Any]],
        verdicts: Sequence[Verdict],
        status: str,
        spans: Sequence[PolicySpan],
        sampling: Sampling | None,
        tokenizer: str,
        began: float,
        error: tuple[str, str] | None = None,
        origin: str | None = None,
    ) -> Episode:
        """The episode, with the next number. Only the seats' own verdicts carry a reward, and only if given."""
        problem = work.posed.problem
        rewards = [verdict.reward for verdict in verdicts]
        known = [reward for reward in rewards if reward is not None]
        answer = next((turn["text"] for turn in reversed(turns) if turn["role"] == "assistant"), None)
        provenance = self.provenance
        if origin is not None and origin != provenance.origin:
            provenance = _with_origin(provenance, origin)
        number, self.number = self.number, self.number + 1
        return Episode(
            provenance=provenance,
            slot=self.slot,
            epoch=self.epoch,
            number=number,
            status=status,
            trainable=status in ("ok", "truncated") and len(known) == len(rewards),
            seats=self.task.spec.seats,
            returns=tuple(known) if len(known) == len(rewards) else None,
            seed=problem.seed,
            started_at=int(began * 1e6),
            wall_ms=int((time.time() - began) * 1e3),
            policy_spans=tuple(spans),
            error=error,
            reasoning={
                "problem_seed": problem.seed,
                "difficulty": problem.difficulty,
                "problem_digest": work.posed.digest,
                "group_id": work.group,
                "sample_index": work.index,
                "tokenizer": tokenizer,
                "temperature": None if sampling is None else sampling.temperature,
                "top_k": None if sampling is None else sampling.top_k,
                "top_p": None if sampling is None else sampling.top_p,
                "answer": answer,
                "turns": list(turns),
            },
            verdicts=tuple(_verdict(self.task, seat, verdict) for seat, verdict in enumerate(verdicts)),
        )

    def worked(self, work: Assignment, text: str, tokenizer: Tokenizer, origin: str = "solver") -> Episode:
        """A dialogue of one answer that no policy sampled: a solver's, a person's. It is judged like any other."""
        began = time.time()
        turns, parent = _opening(work)
        ids = [*tokenizer.encode(text), tokenizer.eos[0]]
        turns.append(
            _turn(0, "assistant", parent, text, tokenizer.opening(work.posed.messages), ids, None, "stop", learn=True)
        )
        verdicts = self.task.judge(work.posed.problem, _transcript(turns))
        last = len(turns) - 1
        spans = [PolicySpan(0, last, last, origin, self.task.spec.version, None)]
        return self.seal(work, turns, verdicts, "ok", spans, None, tokenizer.digest, began, origin=origin)


class Dialogues:
    """Holds dialogues of a task until they are over, many at once; each seat answers through its speaker's engine."""

    def __init__(self, recorder: Recorder, speakers: Mapping[int, Speaker], sampling: Sampling) -> None:
        """speakers: seat -> who answers; one that is given for several seats may be the same object."""
        self._recorder, self._speakers, self._sampling = recorder, speakers, sampling
        self._task = recorder.task
        self._engines = list({id(s.engine): s.engine for s in speakers.values()}.values())

    def hold(self, assignments: Sequence[Assignment], stop: Callable[[], bool] = lambda: False) -> Iterator[Episode]:
        """All dialogues, as they end. `stop`: asked between answers; what is then under way is sealed as aborted.

        Raises `UserError` for a first prompt that is longer than the context: no policy could answer it.
        """
        held: dict[int, _Held] = {}
        for key, work in enumerate(assignments):
            held[key] = _Held(work)
            self._tell(key, held[key], 0, work.posed.messages, opening=True)
        while held:
            for engine in self._engines:
                for completion in engine.advance():
                    one = held[completion.key]
                    ended = self._answered(completion, one)
                    if ended is not None:
                        del held[completion.key]
                        yield ended
            if stop() and held:
                for one in held.values():
                    verdicts = (Verdict.unverifiable("the dialogue was cut off"),) * self._task.spec.seats
                    yield self._seal(one, verdicts, "aborted", None)
                return

    def _tell(self, key: int, one: _Held, seat: int, messages: Sequence[Message], opening: bool = False) -> bool:
        """Says messages to a seat and asks it to answer; False where its context has no room for that."""
        speaker = self._speakers[seat]
        line = one.lines.setdefault(seat, _Line())
        if line.ids:
            suffix = speaker.tokenizer.following(messages, line.ended)
        else:
            suffix = speaker.tokenizer.opening(messages)
        parent = line.parent
        for message in messages:
            if opening:  # recorded with the problem
                break
            one.turns.append(_turn(seat, message.role, parent, message.content))
            parent = len(one.turns) - 1
        line.parent = one.opening_parent if opening else parent
        room = speaker.context - len(line.ids) - len(suffix)
        if room < 1:
            if opening:
                raise UserError(
                    f"a prompt of {self._task.spec.id} has {len(suffix)} tokens, the policy's context "
                    f"{speaker.context}; take an easier difficulty or a policy with a longer context"
                )
            return False
        one.seat, one.suffix = seat, suffix
        line.ids += suffix
        speaker.engine.submit([Request(key, tuple(line.ids), self._sampling)])
        return True

    def _answered(self, completion: Completion, one: _Held) -> Episode | None:
        """Records an answer; the sealed episode if the dialogue is over."""
        seat = one.seat
        speaker, line = self._speakers[seat], one.lines[seat]
        ids = completion.token_ids.tolist()
        text = speaker.tokenizer.decode(ids) if completion.text is None else completion.text
        logprobs = None if completion.logprobs is None else completion.logprobs.tolist()
        learn = speaker.learns and logprobs is not None
        one.turns.append(
            _turn(seat, "assistant", line.parent, text, one.suffix, ids, logprobs, completion.finish_reason, learn)
        )
        place = len(one.turns) - 1
        one.spans.append(PolicySpan(seat, place, place, speaker.policy_id, speaker.engine.version, speaker.digest))
        one.cut |= completion.finish_reason == "length"
        line.ids += ids
        line.parent, line.ended = place, bool(ids) and ids[-1] in speaker.tokenizer.eos
        transcript = _transcript(one.turns)
        try:
            following = self._task.next(one.work.posed, transcript)
            if following is not None and self._tell(
                completion.key, one, following.seat, following.messages
            ):
                return None
        except UserError as error:
            verdicts = (Verdict.unverifiable(str(error)),) * self._task.spec.seats
            return self._seal(one, verdicts, "error", ("environment", str(error)))
        if following is not None:
            one.cut = True
        verdicts = self._task.judge(one.work.posed.problem, transcript)
        return self._seal(one, verdicts, "truncated" if one.cut else "ok", None)

    def _seal(self, one: _Held, verdicts: Sequence[Verdict], status: str, error: tuple[str, str] | None) -> Episode:
        tokenizer = self._speakers[0].tokenizer.digest
        return self._recorder.seal(
            one.work, one.turns, verdicts, status, one.spans, self._sampling, tokenizer, one.began, error
        )


class _Held:
    """A dialogue under way."""

    def __init__(self, work: Assignment) -> None:
        self.work = work
        self.turns, self.opening_parent = _opening(work)
        self.spans: list[PolicySpan] = []
        self.lines: dict[int, _Line] = {}
        self.seat = 0
        self.suffix: list[int] = []
        self.cut = False
        self.began = time.time()


def _opening(work: Assignment) -> tuple[list[dict[str, Any]], int | None]:
    """The turns before the first answer, and the index of the last of those that seat 0 was told."""
    turns: list[dict[str, Any]] = []
    if work.chance is not None:
        choice = {"difficulty": work.posed.problem.difficulty, "probability": work.chance}
        turns.append(_turn(CHANCE_SEAT, CHANCE_ROLE, None, json.dumps(choice)))
    parent = None
    for message in work.posed.messages:
        turns.append(_turn(0, message.role, parent, message.content))
        parent = len(turns) - 1
    return turns, parent


def _turn(
    seat: int,
    role: str,
    parent: int | None,
    text: str,
    suffix: Sequence[int] = (),
    ids: Sequence[int] = (),
    logprobs: Sequence[float] | None = None,
    finish_reason: str | None = None,
    learn: bool = False,
) -> dict[str, Any]:
    return {
        "seat": seat,
        "role": role,
        "parent": parent,
        "suffix_ids": suffix,
        "token_ids": ids,
        "logprobs": logprobs,
        "loss_mask": [learn] * len(ids),
        "finish_reason": finish_reason,
        "text": text,
    }


def _transcript(turns: Sequence[Mapping[str, Any]]) -> Transcript:
    return Transcript(
        tuple(Turn(turn["seat"], turn["role"], turn["text"]) for turn in turns if turn["role"] != CHANCE_ROLE)
    )


def _verdict(task: Task, seat: int, verdict: Verdict) -> dict[str, Any]:
    failed = verdict.state == "unverifiable"
    criteria = [
        {
            "criterion": one.name,
            "verifier_id": task.spec.id,
            "verifier_version": str(task.spec.version),
            "score": None if failed else one.score,
            "low": one.low,
            "high": one.high,
            "reason": one.reason,
        }
        for one in verdict.criteria
    ]
    error = verdict.error or ("no reason was given" if failed else None)
    return {
        "seat": seat,
        "state": verdict.state,
        "reward": verdict.reward,
        "error": error if failed else None,
        "criteria": criteria,
    }


def _with_origin(provenance: Provenance, origin: str) -> Provenance:
    from dataclasses import replace

    return replace(provenance, origin=origin)
