"""An author's functions, called and checked: the same code in this process and in those that run them apart.

Whatever an author's code raises or returns that is not what the contract says becomes a `Failure`, or a verdict that is
"unverifiable". Nothing here limits time or memory; `selfplay.environments.isolation` does.
"""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from selfplay.contract import Criterion, Message, Next, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.errors import UserError

#: Why there is no verdict. The factory's own reasons stand in the archive as the name of a criterion.
TIMEOUT, CRASH, UNCONFINED, BUDGET, ERROR = "time-out", "crash", "unconfined", "budget", "error"
FAILURES = (TIMEOUT, CRASH, UNCONFINED, BUDGET, ERROR)
#: What an unverifiable verdict is counted as that has none of these: the verifier's own, or of a dialogue cut short.
OTHER = "other"
#: Most characters of a reason or an error, of a criterion's name; most criteria of a verdict; largest number.
MOST_REASON, MOST_NAME, MOST_CRITERIA, MOST_NUMBER = 2_000, 200, 100, 1e12

_STATES = ("accepted", "rejected", "unverifiable")
_ROLES = ("system", "user", "tool")


class Failure(UserError):
    """An author's function gave nothing that could be used. kind: one of `FAILURES`."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


#: A problem, what seat 0 is told first, and sha256 (hex) of the problem's key, None for tasks without `key`.
Made = tuple[Problem, tuple[Message, ...], str | None]


def pose(spec: TaskSpec, seed: int, difficulty: float) -> Made:
    """The problem of a seed and a difficulty, what seat 0 is told first, and its key's digest. Raises `Failure`."""
    try:
        problem = spec.sample(seed, difficulty)
        if not isinstance(problem, Problem) or (problem.seed, problem.difficulty) != (seed, difficulty):
            raise ValueError(f"sample({seed}, {difficulty:g}) must give Problem(seed, difficulty, …)")
    except Exception as error:
        raise _no_problem(spec, seed, difficulty, error) from error
    return problem, prompt(spec, problem), key_digest(spec, problem)


def prompt(spec: TaskSpec, problem: Problem) -> tuple[Message, ...]:
    """What seat 0 is told first. Raises `Failure`."""
    try:
        messages = tuple(spec.prompt(problem))
    except Exception as error:
        raise _no_problem(spec, problem.seed, problem.difficulty, error) from error
    if not messages or not _are_messages(messages):
        raise Failure(ERROR, f"{spec.id}: prompt must give messages with the roles {', '.join(_ROLES)}")
    return messages


def key_digest(spec: TaskSpec, problem: Problem) -> str | None:
    """sha256 (hex) of what makes the problem the same as another; None for tasks without `key`. Raises `Failure`."""
    if spec.key is None:
        return None
    text = _text(spec, "key", spec.key, problem)
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        where = f"seed {problem.seed}, difficulty {problem.difficulty:g}"
        raise Failure(ERROR, f"{spec.id}: the key of {where} has lone surrogates") from None


def _no_problem(spec: TaskSpec, seed: int, difficulty: float, error: Exception) -> Failure:
    where = f"seed {seed}, difficulty {difficulty:g}"
    return Failure(ERROR, f"{spec.id}: there is no problem of {where}: {told(error)}")


def not_plain(problem: Problem) -> str | None:
    """What is wrong with a problem's data, which JSON must be able to hold; None where nothing is."""
    try:
        plain = json.loads(json.dumps(dict(problem.data), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return f"its data are not what JSON can hold: {error}"
    same = plain == dict(problem.data)
    return None if same else "its data change in JSON (tuples become lists, keys become text)"


def gold(spec: TaskSpec, problem: Problem) -> str:
    """An answer that must be accepted. Raises `Failure`."""
    assert spec.gold is not None
    return _text(spec, "gold", spec.gold, problem)


def solve(spec: TaskSpec, problem: Problem) -> str:
    """A worked solution. Raises `Failure`."""
    assert spec.solve is not None
    return _text(spec, "solve", spec.solve, problem)


def _text(spec: TaskSpec, name: str, write: Callable[[Problem], str], problem: Problem) -> str:
    where = f"for seed {problem.seed}, difficulty {problem.difficulty:g}"
    try:
        text = write(problem)
    except Exception as error:
        raise Failure(ERROR, f"{spec.id}: {name} fails {where}: {told(error)}") from error
    if not isinstance(text, str):
        raise Failure(ERROR, f"{spec.id}: {name} gives {shown(text)} {where}, which is not text")
    return text


def respond(spec: TaskSpec, problem: Problem, digest: str, transcript: Transcript) -> Next | None:
    """Whose turn comes after the last answer, and what is said to that seat before; None where it is over.

    digest: of the problem; with it and the number of answers the generator is seeded, so the same transcript gives the
    same. Raises `Failure`.
    """
    assert spec.respond is not None
    answers = answers_in(transcript)
    try:
        following = spec.respond(problem, transcript, Random(f"{spec.id} {digest} {answers}"))
    except Exception as error:
        raise Failure(ERROR, f"{spec.id}: respond fails after {answers} answers: {told(error)}") from error
    if following is None:
        return None
    if not isinstance(following, Next) or not isinstance(following.messages, list | tuple):
        raise Failure(ERROR, f"{spec.id}: respond gave {shown(following)}, which is neither Next(…) nor None")
    if not isinstance(following.seat, int) or not 0 <= following.seat < spec.seats:
        raise Failure(ERROR, f"{spec.id}: respond names seat {shown(following.seat)} of {spec.seats}")
    if not _are_messages(following.messages):
        raise Failure(ERROR, f"{spec.id}: respond must give messages with the roles {', '.join(_ROLES)}")
    return following


def answers_in(transcript: Transcript) -> int:
    """How many answers policies have written."""
    return sum(turn.role == "assistant" for turn in transcript.turns)


def dialogue(
    opening: Transcript, speak: Callable[[int, Transcript], str], following: Callable[[Transcript], Next | None]
) -> Transcript:
    """All that is said if each seat answers by `speak`, (seat, what was said so far) -> answer. Seat 0 begins.

    following: whose turn comes after what was said so far.
    """
    transcript, seat = opening, 0
    while True:
        transcript = Transcript((*transcript.turns, Turn(seat, "assistant", speak(seat, transcript))))
        after = following(transcript)
        if after is None:
            return transcript
        seat = after.seat
        told_ = (Turn(seat, message.role, message.content) for message in after.messages)
        transcript = Transcript((*transcript.turns, *told_))


def solved(spec: TaskSpec, problem: Problem, digest: str, opening: Transcript) -> Transcript:
    """The dialogue of the task's solvers in all seats; for tasks with `play`. Raises `Failure`."""
    play = spec.play
    assert play is not None

    def speak(seat: int, transcript: Transcript) -> str:
        try:
            text = play(problem, transcript)
        except Exception as error:
            raise Failure(ERROR, f"{spec.id}: play fails for seat {seat}: {told(error)}") from error
        if not isinstance(text, str):
            raise Failure(ERROR, f"{spec.id}: play gives {shown(text)} for seat {seat}, which is not text")
        return text

    def following(transcript: Transcript) -> Next | None:
        if answers_in(transcript) >= spec.max_turns:
            return None
        return respond(spec, problem, digest, transcript)

    return dialogue(opening, speak, following)


def judge(spec: TaskSpec, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
    """What the task's verifier says, here and now; checked, one verdict a seat."""
    try:
        given: Any = spec.verify(problem, transcript)
        verdicts = tuple(given) if isinstance(given, list | tuple) else (given,)
        wrong = next((found for verdict in verdicts if (found := wrong_with(verdict)) is not None), None)
    except Exception as error:
        return unverifiable(spec, ERROR, told(error))
    if len(verdicts) != spec.seats:
        return unverifiable(spec, ERROR, f"verify gave {len(verdicts)} verdicts for {spec.seats} seats")
    return tuple(_tidy(one) for one in verdicts) if wrong is None else unverifiable(spec, ERROR, wrong)


def unverifiable(spec: TaskSpec, kind: str, error: str) -> tuple[Verdict, ...]:
    """No verdict for any seat. kind: one of `FAILURES`; a criterion of that name says so in the archive."""
    error = printable(error)
    return (Verdict("unverifiable", None, (Criterion(kind, 0.0, error),), error),) * spec.seats


def timed_out(spec: TaskSpec, why: str) -> tuple[Verdict, ...]:
    """The verdicts of a recipe that counts a time-out of an answer's verification as a wrong answer."""
    reason = printable(f"{why}; counted as wrong, as task.timeout = rejected says")
    return (Verdict("rejected", 0.0, (Criterion(TIMEOUT, 0.0, reason),)),) * spec.seats


def wrong_with(verdict: object) -> str | None:
    """What makes this no verdict; None where nothing does. Raises what an odd object raises when it is looked at."""
    if not isinstance(verdict, Verdict) or verdict.state not in _STATES:
        return f"verify gave {shown(verdict)}, which is no verdict"
    if (verdict.reward is None) != (verdict.state == "unverifiable"):
        return f"a verdict is {verdict.state} and its reward is {verdict.reward}"
    if verdict.reward is not None and not _is_number(verdict.reward):
        return f"a reward is {shown(verdict.reward)}"
    if not isinstance(verdict.error, str):
        return f"the error of a verdict is {shown(verdict.error)}, which is not text"
    if not isinstance(verdict.criteria, list | tuple) or len(verdict.criteria) > MOST_CRITERIA:
        return f"the criteria of a verdict must be a tuple of at most {MOST_CRITERIA}"
    for one in verdict.criteria:
        if not isinstance(one, Criterion) or not all(_is_number(n) for n in (one.score, one.low, one.high)):
            return f"criterion {shown(getattr(one, 'name', one))} has the score {shown(getattr(one, 'score', None))}"
        if not one.low <= one.score <= one.high:
            return f"criterion {shown(one.name)} has the score {shown(one.score)}"
        if not isinstance(one.name, str) or not isinstance(one.reason, str):
            return f"criterion {shown(one.name)} must have a name and a reason that are text"
    return None


def _is_number(value: object) -> bool:
    if type(value) is float:  # all but always, and much faster
        return -MOST_NUMBER <= value <= MOST_NUMBER
    return isinstance(value, numbers.Real) and math.isfinite(value) and abs(float(value)) <= MOST_NUMBER


def _tidy(verdict: Verdict) -> Verdict:
    """The same with short, printable texts and plain numbers."""
    criteria = tuple(
        Criterion(
            printable(one.name, MOST_NAME), float(one.score), printable(one.reason), float(one.low), float(one.high)
        )
        for one in verdict.criteria
    )
    reward = None if verdict.reward is None else float(verdict.reward)
    return replace(verdict, reward=reward, criteria=criteria, error=printable(verdict.error))


def printable(text: str, most: int = MOST_REASON) -> str:
    """The text cut to `most` characters, without lone surrogates, which no file could hold."""
    if len(text) <= most and text.isascii():
        return text
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """The beginning of what `repr` gives, whatever the value does when it is asked."""
    try:
        return repr(value)[:60]
    except Exception:
        return f"a {type(value).__name__}"


def told(error: BaseException) -> str:
    """An exception in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return printable(f"{type(error).__name__}: {first}", 500)


def _are_messages(messages: object) -> bool:
    return isinstance(messages, list | tuple) and all(
        isinstance(m, Message) and m.role in _ROLES and isinstance(m.content, str) for m in messages
    )
