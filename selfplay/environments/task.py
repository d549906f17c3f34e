"""A task as the factory uses it: problems made again, told apart, split for training and testing, and judged.

It imports neither torch nor ray. What an author's code raises, returns or takes too long for is an "unverifiable"
verdict with the reason, never a crash and never a zero.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from selfplay.contract import Message, Next, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import author, registry
from selfplay.environments.author import ERROR, Failure
from selfplay.environments.isolation import Host, wire
from selfplay.errors import UserError

#: One problem of so many, by its key, is held out, where the task does not say otherwise: never trained on.
HELD_OUT_OF = 10
#: Of the problems that are not held out, one of so many is for development: measured on, not learned from.
DEVELOPMENT_OF = 20
#: What a problem is for. Whatever stops a run, opens a level or picks a version looks at "development" alone, so that
#: "held_out" stays what nothing was chosen by.
Side = Literal["training", "development", "held_out"]
SIDES: tuple[Side, ...] = get_args(Side)
#: So many hexadecimal digits of a problem's digest are those of its key's digest; they decide its side.
KEY_DIGITS = 16
#: A transcript of more characters than this is read in a process of its own even where the task says isolated=False.
MOST_CHARACTERS = 2**20
_SEEDS = 2**62
_SPLIT_HINT = ": add questions, or change the share by ?held_out=1/4 after the file's name"
#: Problems of each level that the ruleset digest knows.
_DIGEST_SEEDS = 4
#: Problems that another process is asked for at once.
_AT_ONCE = 16


def side_of(digest: str, held_out_of: int = HELD_OUT_OF) -> Side:
    """What the problem with this digest is for. held_out_of: the task's."""
    if int(digest[:8], 16) % held_out_of == 0:
        return "held_out"
    return "development" if never_trained_on(digest) else "training"


def never_trained_on(digest: str) -> bool:
    """Whether the problem with this digest is of no training side, whatever share of its problems a task holds out.

    What is held out is so in one of `DEVELOPMENT_OF` cases, too; of the other cases the digest alone does not tell.
    """
    return int(digest[8:KEY_DIGITS], 16) % DEVELOPMENT_OF == 0


def told_digest(messages: Iterable[tuple[str, str]]) -> str:
    """sha256 (hex) of all that seat 0 is told of a problem, as (role, text) of each message.

    From `KEY_DIGITS` on these are the digits of the problem's digest. Raises `UnicodeEncodeError` for lone surrogates.
    """
    asked = json.dumps([list(message) for message in messages], ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


@dataclass(frozen=True)
class Posed:
    """A problem as it is asked.

    digest: 64 hexadecimal digits: `KEY_DIGITS` of the sha256 of the problem's key, then those of the sha256 of all that
      seat 0 is told from there on. Equal for equal questions; the first digits are equal for twins, and decide `side`.
      Without a key, it is the sha256 of what is told.
    """

    problem: Problem
    messages: tuple[Message, ...]
    digest: str
    held_out_of: int = HELD_OUT_OF

    @property
    def side(self) -> Side:
        """What it is for. The digest alone decides, so a problem and its twins are never on two sides."""
        return side_of(self.digest, self.held_out_of)

    @property
    def held_out(self) -> bool:
        """Whether it is for testing only."""
        return self.side == "held_out"

    @property
    def opening(self) -> Transcript:
        """What has been said before the first answer."""
        return Transcript(tuple(Turn(0, message.role, message.content) for message in self.messages))


class Task:
    """A loaded task. An isolated one runs in processes beside this one, which are started when they are first needed.

    confined: see `Host`. processes: how many transcripts are judged at once. on_timeout: what an answer gets whose
    verification takes too long; "rejected" is for tasks of one seat.
    """

    def __init__(
        self,
        spec: TaskSpec,
        confined: bool = True,
        processes: int = 1,
        on_timeout: Literal["unverifiable", "rejected"] = "unverifiable",
    ) -> None:
        self.spec = spec
        self.on_timeout = on_timeout
        self._host = Host(spec, confined, processes)
        self._ahead: dict[tuple[int, float], Posed | Failure] = {}
        self._last: tuple[int, float] | None = None

    # -- problems ------------------------------------------------------------------------------------------------

    def pose(self, seed: int, difficulty: float) -> Posed:
        """The problem of a seed and a difficulty. Raises `UserError` where the author's code gives none.

        A level above all that the task declares may be a stranger's, who wants to see this process out of memory: the
        problem is made in another one, with limits, even where the task is not isolated.
        """
        difficulty = float(difficulty)
        if not math.isfinite(difficulty):
            raise Failure(ERROR, f"{self.spec.id}: there is no problem of difficulty {difficulty:g}")
        declared = difficulty <= max(self.spec.difficulties)
        if not self.spec.isolated and (declared or registry.source_of(self.spec).kind == "unknown"):
            return self._posed(seed, difficulty, author.pose(self.spec, seed, difficulty))
        found = self._ahead.pop((seed, difficulty), None)
        if found is None and (seed - 1, difficulty) == self._last:  # seeds are tried one after the other
            following = [(one, difficulty) for one in range(seed, seed + _AT_ONCE)]
            with contextlib.suppress(Failure):  # of a later one, perhaps, and then in the time of one
                self._ahead = dict(zip(following, self._made(following, 1), strict=True))
            found = self._ahead.pop((seed, difficulty), None)
        self._last = (seed, difficulty)
        return _given(self._made([(seed, difficulty)], 1)[0] if found is None else found)

    def poses(self, wanted: Sequence[tuple[int, float]]) -> list[Posed]:
        """The problems of (seed, difficulty) pairs, in their order. Raises `UserError` where one of them is missing."""
        if not self.spec.isolated:
            return [self.pose(seed, difficulty) for seed, difficulty in wanted]
        plain = [(seed, float(difficulty)) for seed, difficulty in wanted]
        parts = (plain[first : first + _AT_ONCE] for first in range(0, len(plain), _AT_ONCE))
        return [_given(one) for part in parts for one in self._made(part, len(part))]

    def _made(self, wanted: Sequence[tuple[int, float]], calls: int) -> list[Posed | Failure]:
        """Problems from the worker, or why there are none. calls: in whose time they must be there."""
        made = self._host.make("poses", [[list(one) for one in wanted]], calls)
        if len(made) != len(wanted):
            raise Failure(ERROR, f"{self.spec.id}: {len(wanted)} problems were asked for and {len(made)} made")
        found: list[Posed | Failure] = []
        for (seed, difficulty), one in zip(wanted, made, strict=True):
            try:
                found.append(one if isinstance(one, Failure) else self._posed(seed, difficulty, one))
            except Failure as failure:
                found.append(failure)
        return found

    def _posed(self, seed: int, difficulty: float, made: author.Made) -> Posed:
        problem, messages, key = made
        try:
            digest = told_digest((m.role, m.content) for m in messages)
            if key is not None:
                digest = key[:KEY_DIGITS] + digest[KEY_DIGITS:]
        except UnicodeEncodeError:
            where = f"seed {seed}, difficulty {difficulty:g}"
            raise Failure(ERROR, f"{self.spec.id}: the prompt of {where} has lone surrogates") from None
        return Posed(problem, messages, digest, self.spec.held_out_of)

    def prompt(self, problem: Problem) -> tuple[Message, ...]:
        """What seat 0 is told of a problem. Raises `UserError`."""
        if not self.spec.isolated:
            return author.prompt(self.spec, problem)
        return tuple(self._host.make("prompt", [wire.problem_to(problem)]))

    def problems(self, difficulty: float, side: Side, seed: int = 0) -> Iterator[Posed]:
        """Problems of one side of the split, without end, from `seed` on; each question once.

        Raises `UserError` where a level has so few questions that a side of the split cannot be filled.
        """
        seen: set[str] = set()
        others: dict[Side, set[str]] = {other: set() for other in SIDES if other != side}
        misses = 0
        while True:
            posed = self.pose(seed % _SEEDS, difficulty)
            seed += 1
            if posed.side == side and posed.digest not in seen:
                seen.add(posed.digest)
                misses = 0
                yield posed
                continue
            if posed.side != side and len(others[posed.side]) < 1000:
                others[posed.side].add(posed.digest)
            misses += 1
            if misses > 10_000:
                counts = (
                    f"{len(them)}{' or more' if len(them) == 1000 else ''} {other.replace('_', '-')}"
                    for other, them in others.items()
                )
                raise UserError(
                    f"{self.spec.id} has only {len(seen)} {side.replace('_', '-')} problems of difficulty "
                    f"{difficulty:g} ({', '.join(counts)}); one in {self.spec.held_out_of} is held out"
                    f"{_SPLIT_HINT * self.spec.id.startswith('jsonl/')}"
                )

    # -- what the author's solver says ---------------------------------------------------------------------------

    def gold(self, problem: Problem) -> str:
        """An answer that must be accepted; for tasks with `gold`. Raises `UserError`."""
        if not self.spec.isolated:
            return author.gold(self.spec, problem)
        return str(self._host.make("gold", [wire.problem_to(problem)]))

    def solution(self, problem: Problem) -> str:
        """A worked solution; for tasks with `solve`. Raises `UserError`."""
        if not self.spec.isolated:
            return author.solve(self.spec, problem)
        return str(self._host.make("solve", [wire.problem_to(problem)]))

    def solved(self, posed: Posed) -> Transcript:
        """The dialogue of the task's solvers in all seats; for tasks with `play`. Raises `UserError`."""
        if not self.spec.isolated:
            return author.solved(self.spec, posed.problem, posed.digest, posed.opening)
        opening = wire.transcript_to(posed.opening)
        found = self._host.make("solved", [wire.problem_to(posed.problem), posed.digest, opening])
        assert isinstance(found, Transcript)
        return found

    def dialogue(self, posed: Posed, speak: Callable[[int, Transcript], str]) -> Transcript:
        """All that is said if each seat answers by `speak`: (seat, what was said so far) -> answer. Seat 0 begins."""
        return author.dialogue(posed.opening, speak, lambda transcript: self.next(posed, transcript))

    # -- what reads text that a model wrote ----------------------------------------------------------------------

    def next(self, posed: Posed, transcript: Transcript) -> Next | None:
        """Whose turn comes after the last answer, and what is said to that seat before; None where it is over.

        The same transcript gives the same. Raises `UserError` for what the author's code raises or takes too long for.
        """
        if author.answers_in(transcript) >= self.spec.max_turns:
            return None
        return self.responded(posed, transcript)

    def responded(self, posed: Posed, transcript: Transcript) -> Next | None:
        """What `respond` gives, also after the last answer that there may be. Raises `UserError`."""
        if self.spec.respond is None:
            return None
        if self.apart(transcript):
            following: Next | None = self._host.call("respond", self.arguments(posed, transcript))
            return following
        return author.respond(self.spec, posed.problem, posed.digest, transcript)

    def judge(self, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
        """One verdict a seat; whatever went wrong in the author's code is "unverifiable"."""
        if not self.apart(transcript):
            return author.judge(self.spec, problem, transcript)
        try:
            return self.verdicts(self._host.call("judge", [wire.problem_to(problem), wire.transcript_to(transcript)]))
        except Failure as failure:
            return self.verdicts(failure)

    def verdicts(self, answer: Any) -> tuple[Verdict, ...]:
        """The verdicts that a process gave, or what follows from its failure."""
        if not isinstance(answer, Failure):
            given: tuple[Verdict, ...] = answer
            return given
        if answer.kind == author.TIMEOUT and self.on_timeout == "rejected":
            return author.timed_out(self.spec, str(answer))
        return author.unverifiable(self.spec, answer.kind, str(answer))

    def apart(self, transcript: Transcript) -> bool:
        """Whether a transcript is read in a process of its own: always, or where it is long.

        A spec that was made by hand could not be loaded there: where it is not isolated, all is read here.
        """
        if self.spec.isolated:
            return True
        long = sum(len(turn.text) for turn in transcript.turns) > MOST_CHARACTERS
        return long and registry.source_of(self.spec).kind != "unknown"

    def arguments(self, posed: Posed, transcript: Transcript) -> list[Any]:
        """Those of `respond` in another process."""
        return [wire.problem_to(posed.problem), posed.digest, wire.transcript_to(transcript)]

    @property
    def host(self) -> Host:
        """The processes of the author's code."""
        return self._host

    def close(self) -> None:
        """Ends the processes of the author's code."""
        self._host.close()


def _given(made: Posed | Failure) -> Posed:
    if isinstance(made, Failure):
        raise made
    return made


def ruleset_digest(task: Task | TaskSpec) -> str:
    """sha256 (hex) of some problems of every level, of what is right there, and of the task's file.

    Two installations with the same digest ask and judge alike, as far as these problems reach.
    """
    if isinstance(task, TaskSpec):
        opened = Task(task)
        try:
            return ruleset_digest(opened)
        finally:
            opened.close()
    spec, lines = task.spec, [registry.source_of(task.spec).digest]
    for difficulty in spec.difficulties:
        for seed in range(_DIGEST_SEEDS):
            posed = task.pose(seed, difficulty)
            right = task.gold(posed.problem) if spec.gold is not None else ""
            lines += [posed.digest, right, repr(task.solved(posed)) if spec.play is not None else ""]
    return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def said(posed: Posed, answers: Sequence[str]) -> Transcript:
    """The transcript in which seat 0 gave these answers, one after the other."""
    return Transcript((*posed.opening.turns, *(Turn(0, "assistant", answer) for answer in answers)))
