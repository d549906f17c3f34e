"""What is said between this process and those that run an author's code: JSON, parsed strictly where it arrives.

A question names one of `CALLS` with its arguments. An answer is an object with one field: "value", or "failed" with the
kind and the reason. Everything that arrives from a process in which an author's code has run is checked for its exact
fields, types, sizes and ranges, and is a `ValueError` otherwise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.contract import Criterion, Message, Next, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import author
from selfplay.environments.author import ERROR, UNCONFINED, Failure

#: Most bytes of an answer of a copy, which has read what a model wrote, and of the worker, which has not.
MOST_BYTES, MOST_WORKER_BYTES = 2**20, 2**26
_MOST_MESSAGES, _MOST_TURNS = 1_000, 100_000
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Call:
    """One of the author's functions as it is called from outside.

    run: what the other process does with the plain arguments; gives a plain value. read: the value that came back,
    checked. subject: what a sentence about a failure begins with; "{}" is the task's id. reads_answers: whether the
    author's function is given text that a model wrote.
    """

    run: Callable[..., Any]
    read: Callable[[TaskSpec, Any], Any]
    subject: str
    reads_answers: bool = False


def encode(value: Any) -> bytes:
    """JSON in ASCII; what is not a number or text that JSON has is a `ValueError`."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def decode(text: bytes) -> Any:
    """Strict JSON: no NaN, no field twice, no more nesting than Python bears. Raises `ValueError`."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice")
    return found


def answered(spec: TaskSpec, text: bytes, unconfined: str = "") -> bytes:
    """In the other process: does what a question asks, and gives the answer.

    unconfined: why the process could not be confined; no text that a model wrote is read then.
    """
    try:
        name, arguments = json.loads(text)
        if unconfined and CALLS[name].reads_answers:
            return unread(spec, unconfined)
        return encode({"value": CALLS[name].run(spec, *arguments)})
    except Failure as error:
        return failed(error.kind, str(error))
    except BaseException as error:  # also SystemExit, of which an author's code need not be guilty alone
        return failed(ERROR, author.told(error))


def unread(spec: TaskSpec, why: str) -> bytes:
    """The answer of a process that could not be confined to a question with text that a model wrote."""
    return failed(UNCONFINED, f"{spec.id}: an answer cannot be read safely here: {why}")


def failed(kind: str, why: str) -> bytes:
    """An answer that gives a reason in place of a value."""
    return encode({"failed": [kind, author.printable(why)]})


def read(spec: TaskSpec, name: str, text: bytes) -> Any:
    """The value of an answer, or the `Failure` that it tells of. Raises `ValueError` for what is no answer."""
    answer = decode(text)
    if _fields(answer, "failed"):
        kind, why = _list(answer["failed"], 2)
        if kind not in (ERROR, UNCONFINED):
            raise ValueError("a reason that only the factory gives")
        return Failure(kind, author.printable(_str(why)))
    if not _fields(answer, "value"):
        raise ValueError("neither a value nor a reason")
    return CALLS[name].read(spec, answer["value"])


# Plain values of the contract's classes, and back.


def problem_to(problem: Problem) -> list[Any]:
    return [problem.seed, problem.difficulty, dict(problem.data)]


def _problem(plain: Any) -> Problem:
    seed, difficulty, data = _list(plain, 3)
    if not isinstance(data, dict):
        raise ValueError("a problem's data are no object")
    return Problem(_int(seed), _float(difficulty), data)


def transcript_to(transcript: Transcript) -> list[list[Any]]:
    return [[turn.seat, turn.role, turn.text] for turn in transcript.turns]


def _transcript(spec: TaskSpec, plain: Any) -> Transcript:
    turns = []
    for one in _list(plain, most=_MOST_TURNS):
        seat, role, text = _list(one, 3)
        if not 0 <= _int(seat) < spec.seats:
            raise ValueError("no such seat")
        turns.append(Turn(seat, _str(role), _str(text)))
    return Transcript(tuple(turns))


def _messages_to(messages: tuple[Message, ...]) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


def _messages(plain: Any) -> tuple[Message, ...]:
    pairs = [_list(one, 2) for one in _list(plain, most=_MOST_MESSAGES)]
    messages = tuple(Message(_str(role), _str(content)) for role, content in pairs)
    if any(message.role not in ("system", "user", "tool") for message in messages):
        raise ValueError("no such role")
    return messages


def _run_poses(spec: TaskSpec, wanted: list[Any]) -> Any:
    return [_run_pose(spec, seed, difficulty) for seed, difficulty in wanted]


def _run_pose(spec: TaskSpec, seed: int, difficulty: float) -> Any:
    """[problem, messages, the key's digest], or why there is no such problem: others may be there all the same."""
    try:
        problem, messages, key = author.pose(spec, seed, difficulty)
    except Failure as error:
        return str(error)
    wrong = author.not_plain(problem)
    if wrong is not None:
        return f"{spec.id}: the problem of seed {seed}, difficulty {difficulty:g}: {wrong}"
    return [problem_to(problem), _messages_to(messages), key]


def _read_poses(spec: TaskSpec, plain: Any) -> list[author.Made | Failure]:
    return [_read_pose(spec, one) for one in _list(plain, most=_MOST_TURNS)]


def _read_pose(spec: TaskSpec, plain: Any) -> author.Made | Failure:
    if isinstance(plain, str):
        return Failure(ERROR, author.printable(plain))
    problem, messages, key = _list(plain, 3)
    if (key is None) != (spec.key is None):
        raise ValueError("a key is missing, or there is one too many")
    if key is not None and not _DIGEST.fullmatch(_str(key)):
        raise ValueError("not the digest of a key")
    return _problem(problem), _messages(messages), key


def _run_prompt(spec: TaskSpec, problem: Any) -> Any:
    return _messages_to(author.prompt(spec, _problem(problem)))


def _run_solved(spec: TaskSpec, problem: Any, digest: str, opening: Any) -> Any:
    return transcript_to(author.solved(spec, _problem(problem), digest, _transcript(spec, opening)))


def _run_respond(spec: TaskSpec, problem: Any, digest: str, transcript: Any) -> Any:
    following = author.respond(spec, _problem(problem), digest, _transcript(spec, transcript))
    return None if following is None else [following.seat, _messages_to(tuple(following.messages))]


def _read_next(spec: TaskSpec, plain: Any) -> Next | None:
    if plain is None:
        return None
    seat, messages = _list(plain, 2)
    if not 0 <= _int(seat) < spec.seats:
        raise ValueError("no such seat")
    return Next(seat, _messages(messages))


def _run_judge(spec: TaskSpec, problem: Any, transcript: Any) -> Any:
    verdicts = author.judge(spec, _problem(problem), _transcript(spec, transcript))
    return [
        [v.state, v.reward, v.error, [[c.name, c.score, c.reason, c.low, c.high] for c in v.criteria]] for v in verdicts
    ]


def _read_verdicts(spec: TaskSpec, plain: Any) -> tuple[Verdict, ...]:
    verdicts = []
    for one in _list(plain, spec.seats):
        state, reward, error, criteria = _list(one, 4)
        told = tuple(_criterion(each) for each in _list(criteria, most=author.MOST_CRITERIA))
        verdict = Verdict(
            _str(state), None if reward is None else _float(reward), told, _str(error, author.MOST_REASON)
        )
        wrong = author.wrong_with(verdict)
        if wrong is not None:
            raise ValueError(wrong)
        verdicts.append(verdict)
    return tuple(verdicts)


def _criterion(plain: Any) -> Criterion:
    name, score, reason, low, high = _list(plain, 5)
    texts = _str(name, author.MOST_NAME), _str(reason, author.MOST_REASON)
    return Criterion(texts[0], _float(score), texts[1], _float(low), _float(high))


def _read_text(spec: TaskSpec, plain: Any) -> str:
    return _str(plain)


#: What may be asked.
CALLS: Mapping[str, Call] = {
    "poses": Call(_run_poses, _read_poses, "{}: sample, prompt or key"),
    "prompt": Call(_run_prompt, lambda spec, plain: _messages(plain), "{}: prompt"),
    "gold": Call(lambda spec, problem: author.gold(spec, _problem(problem)), _read_text, "{}: gold"),
    "solve": Call(lambda spec, problem: author.solve(spec, _problem(problem)), _read_text, "{}: solve"),
    "solved": Call(_run_solved, _transcript, "{}: play or respond"),
    "respond": Call(_run_respond, _read_next, "{}: respond", reads_answers=True),
    "judge": Call(_run_judge, _read_verdicts, "the verifier", reads_answers=True),
}


def _fields(value: Any, name: str) -> bool:
    return isinstance(value, dict) and set(value) == {name}


def _list(value: Any, length: int | None = None, most: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise ValueError("not the list that belongs there")
    if most is not None and len(value) > most:
        raise ValueError("too many")
    return value


def _str(value: Any, most: int | None = None) -> str:
    if not isinstance(value, str) or (most is not None and len(value) > most):
        raise ValueError("not the text that belongs there")
    return value


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not a whole number")
    return value


def _float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("not a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("too large a number") from None
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
