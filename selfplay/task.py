"""A task as the factory uses it: problems made again, told apart, split for training and testing, and judged.

It imports neither torch nor ray. What an author's code raises, returns or takes too long for is an "unverifiable"
verdict with the reason, never a crash and never a zero.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from selfplay import registry
from selfplay.contract import Criterion, Message, Next, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.errors import UserError
from selfplay.isolation import Isolated

#: One problem of so many, by its digest, is held out, where the task does not say otherwise: never trained on.
HELD_OUT_OF = 10
_STATES = ("accepted", "rejected", "unverifiable")
_ROLES = ("system", "user", "tool")
_SEEDS = 2**62
_SPLIT_HINT = ": add questions, or change the share by ?held_out=1/4 after the file's name"
#: Problems of each level that the ruleset digest knows.
_DIGEST_SEEDS = 4


def is_held_out(digest: str, of: int = HELD_OUT_OF) -> bool:
    """Whether the problem with this digest is for testing only. of: the task's `held_out_of`."""
    return int(digest[:8], 16) % of == 0


@dataclass(frozen=True)
class Posed:
    """A problem as it is asked. digest: sha256 (hex) of all that seat 0 is told; equal for equal questions."""

    problem: Problem
    messages: tuple[Message, ...]
    digest: str
    held_out_of: int = HELD_OUT_OF

    @property
    def held_out(self) -> bool:
        """Whether it is for testing only. The digest alone decides, so the same question is never on both sides."""
        return is_held_out(self.digest, self.held_out_of)

    @property
    def opening(self) -> Transcript:
        """What has been said before the first answer."""
        return Transcript(tuple(Turn(0, message.role, message.content) for message in self.messages))


class Task:
    """A loaded task. Verifiers that must be isolated run in one process beside this one, started when first needed.

    confined: see `Isolated`.
    """

    def __init__(self, spec: TaskSpec, confined: bool = True) -> None:
        self.spec = spec
        self._confined = confined
        self._isolated: Isolated | None = None

    def pose(self, seed: int, difficulty: float) -> Posed:
        """The problem of a seed and a difficulty. Raises `UserError` where the author's code gives none."""
        difficulty = float(difficulty)
        try:
            problem = self.spec.sample(seed, difficulty)
            if not isinstance(problem, Problem) or (problem.seed, problem.difficulty) != (seed, difficulty):
                raise ValueError(f"sample({seed}, {difficulty:g}) must give Problem(seed, difficulty, …)")
            messages = tuple(self.spec.prompt(problem))
        except Exception as error:
            where = f"seed {seed}, difficulty {difficulty:g}"
            raise UserError(f"{self.spec.id}: there is no problem of {where}: {_told(error)}") from error
        if not messages or any(not isinstance(m, Message) or m.role not in _ROLES for m in messages):
            raise UserError(f"{self.spec.id}: prompt must give messages with the roles {', '.join(_ROLES)}")
        asked = json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
        return Posed(problem, messages, hashlib.sha256(asked.encode()).hexdigest(), self.spec.held_out_of)

    def problems(self, difficulty: float, held_out: bool, seed: int = 0) -> Iterator[Posed]:
        """Problems of one side of the split, without end, from `seed` on; each question once.

        Raises `UserError` where a level has so few questions that a side of the split cannot be filled.
        """
        seen: set[str] = set()
        others: set[str] = set()
        misses = 0
        while True:
            posed = self.pose(seed % _SEEDS, difficulty)
            seed += 1
            if posed.held_out == held_out and posed.digest not in seen:
                seen.add(posed.digest)
                misses = 0
                yield posed
                continue
            if posed.held_out != held_out and len(others) < 1000:
                others.add(posed.digest)
            misses += 1
            if misses > 10_000:
                side, other = ("held-out", "training") if held_out else ("training", "held-out")
                raise UserError(
                    f"{self.spec.id} has only {len(seen)} {side} problems of difficulty {difficulty:g} "
                    f"({len(others)}{' or more' if len(others) == 1000 else ''} {other}); "
                    f"one in {self.spec.held_out_of} is held out{_SPLIT_HINT * self.spec.id.startswith('jsonl/')}"
                )

    def next(self, posed: Posed, transcript: Transcript) -> Next | None:
        """Whose turn comes after the last answer, and what is said to that seat before; None where it is over.

        The same transcript gives the same. Raises `UserError` for what the author's code raises.
        """
        answers = sum(turn.role == "assistant" for turn in transcript.turns)
        if self.spec.respond is None or answers >= self.spec.max_turns:
            return None
        rng = Random(f"{self.spec.id} {posed.digest} {answers}")
        try:
            following = self.spec.respond(posed.problem, transcript, rng)
        except Exception as error:
            raise UserError(f"{self.spec.id}: respond fails after {answers} answers: {_told(error)}") from error
        if following is None:
            return None
        if not isinstance(following, Next) or not isinstance(following.messages, list | tuple):
            raise UserError(f"{self.spec.id}: respond gave {following!r:.60}, which is neither Next(…) nor None")
        if not isinstance(following.seat, int) or not 0 <= following.seat < self.spec.seats:
            raise UserError(f"{self.spec.id}: respond names seat {following.seat} of {self.spec.seats}")
        if any(not isinstance(m, Message) or m.role not in _ROLES for m in following.messages):
            raise UserError(f"{self.spec.id}: respond must give messages with the roles {', '.join(_ROLES)}")
        return following

    def dialogue(self, posed: Posed, speak: Callable[[int, Transcript], str]) -> Transcript:
        """All that is said if each seat answers by `speak`: (seat, what was said so far) -> answer. Seat 0 begins."""
        transcript, seat = posed.opening, 0
        while True:
            transcript = Transcript((*transcript.turns, Turn(seat, "assistant", speak(seat, transcript))))
            following = self.next(posed, transcript)
            if following is None:
                return transcript
            seat = following.seat
            told = (Turn(seat, message.role, message.content) for message in following.messages)
            transcript = Transcript((*transcript.turns, *told))

    def solved(self, posed: Posed) -> Transcript:
        """The dialogue of the task's solvers in all seats; for tasks with `play`."""
        play = self.spec.play
        assert play is not None
        return self.dialogue(posed, lambda seat, transcript: play(posed.problem, transcript))

    def judge(self, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
        """One verdict a seat; whatever went wrong in the author's code is "unverifiable"."""
        if self.spec.isolated:
            if self._isolated is None:
                self._isolated = Isolated(self.spec, self._confined)
            return self._isolated.judge(problem, transcript)
        return judged(self.spec, problem, transcript)

    def close(self) -> None:
        """Ends the verifier's process."""
        if self._isolated is not None:
            self._isolated.close()
            self._isolated = None


def ruleset_digest(spec: TaskSpec) -> str:
    """sha256 (hex) of some problems of every level, of what is right there, and of the task's file.

    Two installations with the same digest ask and judge alike, as far as these problems reach.
    """
    task, lines = Task(spec), [registry.source_of(spec).digest]
    for difficulty in spec.difficulties:
        for seed in range(_DIGEST_SEEDS):
            posed = task.pose(seed, difficulty)
            right = spec.gold(posed.problem) if spec.gold is not None else ""
            lines += [posed.digest, right, repr(task.solved(posed)) if spec.play is not None else ""]
    return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def judged(spec: TaskSpec, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
    """What the task's verifier says, here and now; checked, one verdict a seat."""
    try:
        given = spec.verify(problem, transcript)
        verdicts = tuple(given) if isinstance(given, list | tuple) else (given,)
    except Exception as error:
        return unverifiable(spec, _told(error))
    if len(verdicts) != spec.seats:
        return unverifiable(spec, f"verify gave {len(verdicts)} verdicts for {spec.seats} seats")
    problem_found = next((lie for verdict in verdicts if (lie := _wrong(verdict)) is not None), None)
    return verdicts if problem_found is None else unverifiable(spec, problem_found)


def unverifiable(spec: TaskSpec, error: str) -> tuple[Verdict, ...]:
    """Nobody can tell, for any seat."""
    return (Verdict.unverifiable(error),) * spec.seats


def _wrong(verdict: object) -> str | None:
    if not isinstance(verdict, Verdict) or verdict.state not in _STATES:
        return f"verify gave {verdict!r:.60}, which is no verdict"
    if (verdict.reward is None) != (verdict.state == "unverifiable"):
        return f"a verdict is {verdict.state} and its reward is {verdict.reward}"
    if verdict.reward is not None and not math.isfinite(verdict.reward):
        return f"a reward is {verdict.reward}"
    for one in verdict.criteria:
        if not isinstance(one, Criterion) or not math.isfinite(one.score) or not one.low <= one.score <= one.high:
            return f"criterion {getattr(one, 'name', one)!r} has the score {getattr(one, 'score', None)}"
    return None


def said(posed: Posed, answers: Sequence[str]) -> Transcript:
    """The transcript in which seat 0 gave these answers, one after the other."""
    return Transcript((*posed.opening.turns, *(Turn(0, "assistant", answer) for answer in answers)))


def _told(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:500]
