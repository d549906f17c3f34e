"""Dialogues of policies with a task, from the problem to the sealed episode.

Each seat has a line of tokens of its own: what it was told and what it wrote, never tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.contract import Message, Transcript, Verdict
from selfplay.environments.author import ERROR, Failure, answers_in, unverifiable
from selfplay.environments.judging import Answer, Judging
from selfplay.episode import Episode, PolicySpan, clock
from selfplay.errors import UserError
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.engine import Completion, Engine, Request
from selfplay.rollout.recorder import Assignment, Recorder, opening, transcript_of, turn
from selfplay.rollout.sampling import Sampling

__all__ = ["Assignment", "Dialogues", "Recorder", "Speaker"]


@dataclass(frozen=True)
class Speaker:
    """Who answers for a seat. policy_id, digest: as stored; the engine knows its version. learns: whether its tokens
    may be learned from; those of an engine that gives no log-probabilities can be imitated, and nothing else.
    tokenizer: of an endpoint's answers, the one that they are recorded with.
    """

    engine: Engine
    tokenizer: Tokenizer
    policy_id: str
    digest: str | None
    context: int
    learns: bool = True


@dataclass
class _Line:
    """What a seat has before it: tokens, messages, the turn that they end with, and whether that has its end token."""

    ids: list[int] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    parent: int | None = None
    ended: bool = True


class Dialogues:
    """Holds dialogues of a task until they are over, many at once; each seat answers through its speaker's engine.

    The author's `respond` and `verify` work on some dialogues while engines work on others. An episode in which
    something may be learned that has no log-probabilities has the origin "teacher".
    """

    def __init__(
        self,
        recorder: Recorder,
        speakers: Mapping[int, Speaker],
        sampling: Sampling,
        budget_s: float | None = None,
    ) -> None:
        """speakers: seat -> who answers; one that is given for several seats may be the same object. budget_s: of one
        `hold`; see `Judging`.
        """
        self._recorder, self._speakers, self._sampling, self._budget_s = recorder, speakers, sampling, budget_s
        self._task = recorder.task
        self._engines = list({id(s.engine): s.engine for s in speakers.values()}.values())

    def hold(self, assignments: Sequence[Assignment], stop: Callable[[], bool] = lambda: False) -> Iterator[Episode]:
        """All dialogues, as they end. `stop`: asked between answers; what is then under way is sealed as aborted.

        Raises `UserError` for a first prompt that is longer than the context: no policy could answer it.
        """
        held: dict[int, _Held] = {}
        judging = Judging(self._task, self._budget_s)
        try:
            for key, work in enumerate(assignments):
                held[key] = _Held(work)
                self._tell(key, held[key], 0, work.posed.messages, opening=True)
            while held:
                for engine in self._engines:
                    for completion in engine.advance():
                        ended = self._answered(completion, held[completion.key], judging)
                        if ended is not None:
                            del held[completion.key]
                            yield ended
                while answers := judging.take(wait=len(judging) == len(held)):
                    for answer in answers:
                        ended = self._went_on(answer, held[answer.key], judging)
                        if ended is not None:
                            del held[answer.key]
                            yield ended
                if stop() and held:
                    for one in held.values():
                        verdicts = (Verdict.unverifiable("the dialogue was cut off"),) * self._task.spec.seats
                        yield self._seal(one, verdicts, "aborted", None)
                    return
        finally:  # an engine must not answer the next dialogues with what is left of these
            judging.close()
            for engine in self._engines:
                engine.cancel()

    def _tell(self, key: int, one: _Held, seat: int, messages: Sequence[Message], opening: bool = False) -> bool:
        """Says messages to a seat and asks it to answer; False where its context has no room for that."""
        speaker = self._speakers[seat]
        line = one.lines.setdefault(seat, _Line())
        if line.ids:
            suffix = speaker.tokenizer.following(messages, line.ended)
        else:
            suffix = speaker.tokenizer.opening(messages)
        room = speaker.context - len(line.ids) - len(suffix)
        if room < 1:
            if opening:
                raise UserError(
                    f"a prompt of {self._task.spec.id} has {len(suffix)} tokens, the policy's context "
                    f"{speaker.context}; take an easier difficulty or a policy with a longer context"
                )
            return False
        if not line.ids and not suffix:
            raise UserError(f"{self._task.spec.id}: seat {seat} is to answer, and was told nothing")
        if opening:  # recorded with the problem
            line.parent = one.opening_parent
        else:
            for message in messages:
                one.turns.append(turn(seat, message.role, line.parent, message.content))
                line.parent = len(one.turns) - 1
        one.seat, one.suffix = seat, suffix
        line.ids += suffix
        line.messages += [(message.role, message.content) for message in messages]
        speaker.engine.submit([Request(key, tuple(line.ids), self._sampling, tuple(line.messages))])
        return True

    def _answered(self, completion: Completion, one: _Held, judging: Judging) -> Episode | None:
        """Records an answer, and asks what follows from it; the sealed episode if the dialogue is over."""
        seat = one.seat
        speaker, line = self._speakers[seat], one.lines[seat]
        if completion.error is not None:
            verdicts = (Verdict.unverifiable("a seat gave no answer"),) * self._task.spec.seats
            return self._seal(one, verdicts, "error", ("policy", completion.error))
        ids = completion.token_ids.tolist()
        text = speaker.tokenizer.decode(ids) if completion.text is None else completion.text
        logprobs = None if completion.logprobs is None else completion.logprobs.tolist()
        reason, learn = completion.finish_reason, speaker.learns
        one.turns.append(turn(seat, "assistant", line.parent, text, one.suffix, ids, logprobs, reason, learn))
        place = len(one.turns) - 1
        one.spans.append(PolicySpan(seat, place, place, speaker.policy_id, speaker.engine.version, speaker.digest))
        one.cut |= completion.finish_reason == "length"
        one.taught |= logprobs is None and learn
        line.ids += ids
        line.messages.append(("assistant", text))
        line.parent, line.ended = place, bool(ids) and ids[-1] in speaker.tokenizer.eos
        one.transcript = transcript_of(one.turns)
        if self._task.spec.respond is None:
            judging.judge(completion.key, one.work.posed, one.transcript)
        else:  # also after the last answer that there may be: would it have gone on?
            judging.respond(completion.key, one.work.posed, one.transcript)
        return None

    def _went_on(self, answer: Answer, one: _Held, judging: Judging) -> Episode | None:
        """Tells the next seat, or asks for verdicts; the sealed episode if the dialogue is over."""
        following = answer.value
        if isinstance(following, tuple):
            return self._seal(one, following, "truncated" if one.cut else "ok", None)
        over = answers_in(one.transcript) >= self._task.spec.max_turns
        try:
            if isinstance(following, Failure):
                if not over:  # at the end it need not answer any more
                    raise following
            elif following is not None:
                if not over and self._tell(answer.key, one, following.seat, following.messages):
                    return None
                one.cut = True
        except UserError as error:
            kind = error.kind if isinstance(error, Failure) else ERROR
            verdicts = unverifiable(self._task.spec, kind, str(error))
            return self._seal(one, verdicts, "error", ("environment", str(error)))
        judging.judge(answer.key, one.work.posed, one.transcript)
        return None

    def _seal(self, one: _Held, verdicts: Sequence[Verdict], status: str, error: tuple[str, str] | None) -> Episode:
        tokenizer = self._speakers[0].tokenizer.digest
        origin = "teacher" if one.taught else None
        return self._recorder.seal(
            one.work, one.turns, verdicts, status, one.spans, self._sampling, tokenizer, one.began, error, origin
        )


class _Held:
    """A dialogue under way."""

    def __init__(self, work: Assignment) -> None:
        self.work = work
        self.turns, self.opening_parent = opening(work)
        self.spans: list[PolicySpan] = []
        self.lines: dict[int, _Line] = {}
        self.seat = 0
        self.suffix: list[int] = []
        self.transcript = Transcript(())
        self.cut = self.taught = False
        self.began = clock.now()
