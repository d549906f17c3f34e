"""A file of questions and answers, one JSON object a line, as a task: no code.

`questions.jsonl`, or with what is not to be guessed: `questions.jsonl?question=prompt&answer=target&kind=number`.

Fields, where they are not given: the first pair of question|problem|prompt and answer|solution that the first line has.
The right answer is what follows the last "####" of the answer (as in GSM8K), else what its last \\boxed{} holds (as in
MATH), else the whole of it. Kinds, where not given: "number" if all right answers are numbers; "math" if they are in
boxes or one has a backslash or a power; else "exact". Numbers and exact texts are asked for after "####", mathematics
in a box.

The id names the file and what it holds: jsonl/NAME_DIGEST-v0. The problem of seed s is line s modulo the number of
lines, so every line comes once in as many seeds.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from selfplay import answers
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict
from selfplay.errors import UserError

PREFIX = "jsonl:"
KINDS = ("exact", "math", "number")
_QUESTIONS, _ANSWERS = ("question", "problem", "prompt"), ("answer", "solution")
_ASKED = {
    "exact": 'Write your final answer after "####", at the very end.',
    "math": "Write your final answer within \\boxed{}, at the very end.",
    "number": 'Write your final answer, a number alone, after "####", at the very end.',
}


@dataclass(frozen=True)
class Row:
    """One line. gold: the right answer. worked: how one comes to it; "" if the line does not say. boxed: see above."""

    line: int
    question: str
    gold: str
    worked: str
    boxed: bool


@dataclass(frozen=True)
class Reference:
    """What a name of such a task says. path: of the file; fields and kind: "" where they are to be guessed."""

    path: str
    question: str = ""
    answer: str = ""
    kind: str = ""

    @property
    def options(self) -> str:
        """As they are written after the path; "" where nothing is given."""
        given = [f"{name}={value}" for name in ("question", "answer", "kind") if (value := getattr(self, name))]
        return "?" + "&".join(given) if given else ""


def is_reference(reference: str) -> bool:
    return reference.startswith(PREFIX) or reference.partition("?")[0].endswith(".jsonl")


def parsed(reference: str) -> Reference:
    """Raises `UserError` for an option that there is not."""
    path, _, query = reference.removeprefix(PREFIX).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in ("question", "answer", "kind") or not value:
            raise UserError(f"{reference}: after ? stand question=, answer= and kind=, not {name}={value}")
    kind = given.get("kind", "")
    if kind and kind not in KINDS:
        raise UserError(f"{reference}: there is no kind {kind!r}, only {', '.join(KINDS)}")
    return Reference(path, given.get("question", ""), given.get("answer", ""), kind)


def read(path: str) -> str:
    """The file's text. Raises `UserError`."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: is not UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def load(text: str, reference: Reference) -> TaskSpec:
    """The task of a file's text. Raises `UserError`, with the line's number, where a line is not as it should be."""
    rows = _rows(text, reference)
    kind = reference.kind or _kind(rows)
    if kind == "math":
        answers.math_verify()
    if kind == "number":
        bad = next((row for row in rows if answers.number(row.gold.removeprefix("$")) is None), None)
        if bad is not None:
            raise UserError(f"{reference.path}, line {bad.line}: the answer {bad.gold[:60]!r} is no number")
    name = re.sub(r"[^a-z0-9]+", "_", Path(reference.path).stem.lower()).strip("_")[:40] or "file"
    content = "\0".join((text, reference.question, reference.answer, kind))
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return TaskSpec(
        id=f"jsonl/{name}_{digest}-v0",
        summary=f"{len(rows)} questions of {Path(reference.path).name}, whose answers are compared as {kind}.",
        sample=partial(_sample, rows),
        prompt=partial(_prompt, kind),
        verify=partial(_verify, kind),
        gold=partial(_gold, kind),
        solve=partial(_solve, rows, kind) if all(row.worked for row in rows) else None,
        timeout_s=10.0,
        licence="NOASSERTION",
    )


def _rows(text: str, reference: Reference) -> list[Row]:
    rows: list[Row] = []
    asked: dict[str, Row] = {}
    fields: tuple[str, str] | None = None
    for at, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{reference.path}, line {at}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise UserError(f"{where}: must be an object with a question and an answer, such as {_EXAMPLE}")
        fields = fields or _fields(found, reference, where)
        row = _row(found, fields, at, where)
        other = asked.setdefault(row.question, row)
        if other.gold != row.gold:
            raise UserError(f"{where}: asks what line {other.line} asks, and has another answer")
        rows.append(row)
    if not rows:
        raise UserError(f"{reference.path} has no lines; each should be an object such as {_EXAMPLE}")
    return rows


_EXAMPLE = '{"question": "6*7?", "answer": "42"}'


def _fields(found: dict[str, object], reference: Reference, where: str) -> tuple[str, str]:
    question = reference.question or next((name for name in _QUESTIONS if name in found), "")
    answer = reference.answer or next((name for name in _ANSWERS if name in found), "")
    if not question or not answer:
        has = ", ".join(map(str, found)) or "no fields"
        raise UserError(f"{where}: which are question and answer? It has {has}; say ?question=…&answer=…")
    return question, answer


def _row(found: dict[str, object], fields: tuple[str, str], line: int, where: str) -> Row:
    for name in fields:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            told = "is missing" if name not in found else f"must be text or a number, and is {json.dumps(value)[:60]}"
            raise UserError(f"{where}: the field {name!r} {told}")
    question, answer = str(found[fields[0]]), str(found[fields[1]])
    if (hashed := answers.after_hashes(answer)) is not None:
        gold, worked, in_box = hashed, answer.rpartition("####")[0].strip(), False
    elif (inside := answers.boxed(answer)) is not None:
        gold, worked, in_box = inside, answer, True
    else:
        other = found.get("solution")
        gold, worked, in_box = answer.strip(), other if isinstance(other, str) else "", False
    if not gold:
        raise UserError(f"{where}: the answer is empty")
    return Row(line, question, gold, worked, in_box)


def _kind(rows: list[Row]) -> str:
    if all(answers.number(row.gold.removeprefix("$")) is not None for row in rows):
        return "number"
    return "math" if any(row.boxed or "\\" in row.gold or "^" in row.gold for row in rows) else "exact"


def _sample(rows: list[Row], seed: int, difficulty: float) -> Problem:
    row = rows[seed % len(rows)]
    return Problem(seed, difficulty, {"line": row.line, "question": row.question, "answer": row.gold})


def _prompt(kind: str, problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['question'].rstrip()}\n\n{_ASKED[kind]}")]


def _gold(kind: str, problem: Problem) -> str:
    gold = problem.data["answer"]
    return f"\\boxed{{{gold}}}" if kind == "math" else f"#### {gold}"


def _solve(rows: list[Row], kind: str, problem: Problem) -> str:
    return f"{rows[problem.seed % len(rows)].worked}\n{_gold(kind, problem)}"


def _verify(kind: str, problem: Problem, transcript: Transcript) -> Verdict:
    gold, reason = problem.data["answer"], f"the answer is {problem.data['answer'][:200]}"
    if kind == "math":
        inside = answers.final_box(transcript.answer)
        if inside is None:
            return Verdict.of(False, "the text does not end in a box")
        return Verdict.of(answers.same_mathematics(inside, gold), reason)
    answer = answers.after_hashes(transcript.answer)
    if answer is None:
        return Verdict.of(False, 'nothing follows "####"')
    if kind == "exact":
        return Verdict.of(answer == gold, reason)
    given = answers.number(answer.removeprefix("$"))
    return Verdict.of(given is not None and given == answers.number(gold.removeprefix("$")), reason)
