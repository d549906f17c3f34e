"""A file of questions and answers, one JSON object a line, as a task: no code.

`questions.jsonl`, or with what is not to be guessed: `questions.jsonl?question=prompt&answer=target&kind=number`.

Options:
    question, answer: the fields; "reward_model.ground_truth" is a field within a field.
    kind: exact | math | number, how answers are compared.
    dress: lenient (default) takes an answer also with what chat models put round it: **…**, $…$, a code fence,
        \\boxed{}, a full stop; and numbers such as "-$42", ".5", "1 234" and "1e3". strict takes the answer alone.
    units: words that may follow a number, such as units=apples,km. Without it no word may.
    held_out: the share of the problems that is held out for testing, from 1/2 to 1/99; 1/10 by default.
    key: a field that is equal for questions that are one problem, such as key=source_id for paraphrases; they are then
        all for training, or all for testing. Without it, questions are one problem that differ in capitals, white
        space and Unicode form alone.
    split: problem (default), or text: as in v1, each different text is a problem. For runs that were begun so.

Fields, where they are not given: the first of question, problem, prompt, messages; and the first of answer, solution,
ground_truth, target, completion, reward_model.ground_truth that the first line has, else the assistant's last message.
A question or an answer may be a list of messages, {"role": …, "content": …}, as of OpenAI, TRL and verl.

The right answer is what follows the last "####" of the answer (as in GSM8K), else what its last \\boxed{} holds (as in
MATH), else the whole of it. Kinds, where not given: "number" if all right answers are numbers; "math" if they are in
boxes or one has a backslash or a power; else "exact". Numbers and exact texts are asked for after "####", mathematics
in a box.

The id names the file, what it holds and the options: jsonl/NAME_DIGEST-v2. The problem of seed s is line s modulo the
number of lines, so every line comes once in as many seeds.

Version history:
    v0: first version.
    v1: mathematics is compared by a strict grammar (`selfplay.answers`); dress, units, held_out; lists of messages.
    v2: the same questions and verdicts; what is held out is chosen by problem (key), not by text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from selfplay import answers
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict, normalised
from selfplay.errors import UserError
from selfplay.io import storage

PREFIX = "jsonl:"
KINDS = ("exact", "math", "number")
DRESSES = ("lenient", "strict")
SPLITS = ("problem", "text")
_OPTIONS = ("question", "answer", "kind", "dress", "units", "held_out", "key", "split")
_QUESTIONS = ("question", "problem", "prompt", "messages")
_ANSWERS = ("answer", "solution", "ground_truth", "target", "completion", "reward_model.ground_truth")
_ROLES = ("system", "user", "assistant")
_MARKS = ("***", "**", "__", "*", "`")
_ASKED = {
    "exact": 'Write your final answer after "####", at the very end.',
    "math": "Write your final answer within \\boxed{}, at the very end.",
    "number": 'Write your final answer, a number alone, after "####", at the very end.',
}


@dataclass(frozen=True)
class Row:
    """One line. gold: the right answer. worked: how one comes to it; "" if the line does not say. boxed: see above.

    system: what the system's message says; "" where there is none. key: what the field of that option says, or "".
    """

    line: int
    question: str
    gold: str
    worked: str
    boxed: bool
    system: str = ""
    key: str = ""


@dataclass(frozen=True)
class Reference:
    """What a name of such a task says. path: of the file; the rest as it was given, "" where it was not."""

    path: str
    question: str = ""
    answer: str = ""
    kind: str = ""
    dress: str = ""
    units: str = ""
    held_out: str = ""
    key: str = ""
    split: str = ""

    @property
    def options(self) -> str:
        """As they are written after the path; "" where nothing is given."""
        given = {name: value for name in _OPTIONS if (value := getattr(self, name))}
        return "?" + urlencode(given, safe="/,.") if given else ""

    @property
    def held_out_of(self) -> int:
        """One question of so many is held out."""
        return int(self.held_out.removeprefix("1/") or 10)


@dataclass(frozen=True)
class _Judging:
    """How answers are compared."""

    kind: str
    lenient: bool
    units: tuple[str, ...]


def is_reference(reference: str) -> bool:
    return reference.startswith(PREFIX) or reference.partition("?")[0].endswith(".jsonl")


def parsed(reference: str) -> Reference:
    """Raises `UserError` for an unknown option or value."""
    path, _, query = reference.removeprefix(PREFIX).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in _OPTIONS or not value:
            known = "=, ".join(_OPTIONS)
            raise UserError(f"{reference}: the options after ? are {known}=, not {name}={value}")
    for name, values in (("kind", KINDS), ("dress", DRESSES), ("split", SPLITS)):
        if name in given and given[name] not in values:
            raise UserError(f"{reference}: there is no {name} {given[name]!r}, only {', '.join(values)}")
    if "held_out" in given and re.fullmatch(r"1/([2-9]|[1-9][0-9])", given["held_out"]) is None:
        raise UserError(f"{reference}: held_out is a share from 1/2 to 1/99, such as 1/4, not {given['held_out']}")
    if given.get("split") == "text" and "key" in given:
        raise UserError(f"{reference}: with split=text each text is a problem of its own; leave out key= or split=")
    if "units" in given and re.fullmatch(r"[^\W\d_]+( [^\W\d_]+)*(,[^\W\d_]+( [^\W\d_]+)*)*", given["units"]) is None:
        raise UserError(f"{reference}: units are words with commas between them, such as apples,km")
    return Reference(path, **given)


def read(path: str) -> str:
    """The file's text. Raises `UserError`."""
    try:
        with io.TextIOWrapper(storage.open_regular(os.path.expanduser(path)), encoding="utf-8-sig") as file:
            return file.read()
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
    judging = _Judging(kind, reference.dress != "strict", tuple(filter(None, reference.units.split(","))))
    if judging.units and kind != "number":
        raise UserError(f"{reference.path}: units= is for numbers, and the answers are compared as {kind}")
    if kind == "math":
        answers.compare("1", "2")  # loads what it needs once, not in each copy of the verifier's process
    if kind == "number":
        bad = next((row for row in rows if answers.number(row.gold.removeprefix("$")) is None), None)
        if bad is not None:
            raise UserError(f"{reference.path}, line {bad.line}: the answer {bad.gold[:60]!r} is no number")
    name = re.sub(r"[^a-z0-9]+", "_", Path(reference.path).stem.lower()).strip("_")[:40] or "file"
    dress = "lenient" if judging.lenient else "strict"
    content = [text, reference.question, reference.answer, kind, dress, reference.units, reference.held_out]
    content += [reference.key] if reference.key else []
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]
    by_text = reference.split == "text"
    v1 = (f"jsonl/{name}_{digest}-v1", hashlib.sha256(text.encode()).hexdigest())
    return TaskSpec(
        id=f"jsonl/{name}_{digest}-v{1 if by_text else 2}",
        summary=f"{len(rows)} questions of {Path(reference.path).name}, whose answers are compared as {kind}.",
        sample=partial(_sample, rows),
        prompt=partial(_prompt, kind),
        verify=partial(_verify, judging),
        gold=partial(_gold, kind),
        solve=partial(_solve, rows, kind) if all(row.worked for row in rows) else None,
        timeout_s=10.0,
        licence="NOASSERTION",
        held_out_of=reference.held_out_of,
        key=None if by_text else _key,
        before_key=None if by_text or reference.key else v1,
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
        if reference.key:
            row = replace(row, key=_text(_field(found, reference.key), reference.key, where, "user"))
        other = asked.setdefault(row.question, row)
        if other.gold != row.gold:
            raise UserError(f"{where}: asks what line {other.line} asks, and has another answer")
        rows.append(row)
    if not rows:
        raise UserError(f"{reference.path} has no lines; each should be an object such as {_EXAMPLE}")
    return rows


_EXAMPLE = '{"question": "6*7?", "answer": "42"}'


def _fields(found: dict[str, object], reference: Reference, where: str) -> tuple[str, str]:
    question = reference.question or next((name for name in _QUESTIONS if _field(found, name) is not None), "")
    answer = reference.answer or next((name for name in _ANSWERS if _field(found, name) is not None), "")
    if question and not answer and _said(_field(found, question), "assistant"):
        answer = question  # the assistant's last message
    if not question or not answer:
        has = ", ".join(map(str, found)) or "no fields"
        raise UserError(f"{where}: which are question and answer? It has {has}; say ?question=…&answer=…")
    return question, answer


def _field(found: dict[str, object], name: str) -> Any:
    """The value of "name" or of "name.within"; None where there is none."""
    if name in found:
        return found[name]
    outer, dotted, inner = name.partition(".")
    within = found.get(outer) if dotted else None
    return within.get(inner) if isinstance(within, dict) else None


def _said(value: object, role: str) -> str:
    """What the last message of a role says, in a list of messages; "" where there is none, or it is no such list."""
    if not isinstance(value, list):
        return ""
    said = [one["content"] for one in value if isinstance(one, dict) and one.get("role") == role and "content" in one]
    return said[-1] if said and isinstance(said[-1], str) else ""


def _row(found: dict[str, object], fields: tuple[str, str], line: int, where: str) -> Row:
    question, system = _question(_field(found, fields[0]), fields[0], where)
    answer = _text(_field(found, fields[1]), fields[1], where, "assistant")
    if (hashed := answers.after_hashes(answer)) is not None:
        gold, worked, in_box = hashed, answer.rpartition("####")[0].strip(), False
    elif (inside := answers.boxed(answer)) is not None:
        gold, worked, in_box = inside, answer, True
    else:
        other = found.get("solution")
        gold, worked, in_box = answer.strip(), other if isinstance(other, str) else "", False
    if not gold:
        raise UserError(f"{where}: the answer is empty")
    return Row(line, question, gold, worked, in_box, system)


def _question(value: object, name: str, where: str) -> tuple[str, str]:
    """The question, and what the system's message says."""
    if not isinstance(value, list):
        return _text(value, name, where, "user"), ""
    roles = [one.get("role") if isinstance(one, dict) else None for one in value]
    unknown = next((role for role in roles if role not in _ROLES), None)
    if unknown is not None or None in roles:
        raise UserError(f"{where}: the messages of {name!r} need the roles {', '.join(_ROLES)}")
    if roles.count("user") != 1 or roles.count("assistant") > 1 or roles.count("system") > 1:
        raise UserError(f"{where}: {name!r} is a conversation of several turns; a task asks one question")
    return _text(value, name, where, "user"), _said(value, "system")


def _text(value: object, name: str, where: str, role: str) -> str:
    if isinstance(value, list) and (said := _said(value, role)).strip():
        return said
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        given = "is missing" if value is None else f"must be text or a number, and is {json.dumps(value)[:60]}"
        raise UserError(f"{where}: the field {name!r} {given}")
    return str(value)


def _kind(rows: list[Row]) -> str:
    if all(answers.number(row.gold.removeprefix("$")) is not None for row in rows):
        return "number"
    return "math" if any(row.boxed or "\\" in row.gold or "^" in row.gold for row in rows) else "exact"


def _sample(rows: list[Row], seed: int, difficulty: float) -> Problem:
    row = rows[seed % len(rows)]
    data = {"line": row.line, "question": row.question, "answer": row.gold}
    more = {"system": row.system, "key": row.key}
    return Problem(seed, difficulty, data | {name: text for name, text in more.items() if text})


def _key(problem: Problem) -> str:
    return str(problem.data.get("key") or normalised(problem.data["question"]))


def _prompt(kind: str, problem: Problem) -> list[Message]:
    question = Message("user", f"{problem.data['question'].rstrip()}\n\n{_ASKED[kind]}")
    system = problem.data.get("system", "")
    return [Message("system", system), question] if system else [question]


def _gold(kind: str, problem: Problem) -> str:
    gold = problem.data["answer"]
    return f"\\boxed{{{gold}}}" if kind == "math" else f"#### {gold}"


def _solve(rows: list[Row], kind: str, problem: Problem) -> str:
    return f"{rows[problem.seed % len(rows)].worked}\n{_gold(kind, problem)}"


def _verify(judging: _Judging, problem: Problem, transcript: Transcript) -> Verdict:
    gold, text = problem.data["answer"], transcript.answer
    right = f"the answer is {gold[:200]}"
    if judging.kind == "math":
        inside = answers.final_box(text.rstrip().rstrip("`_").rstrip() if judging.lenient else text)
        if inside is None:
            return Verdict.of(False, "the text does not end in a box")
        found = answers.compare(inside, gold)
        return Verdict.of(found.same, f"{right}; the one given: {found.reason}")
    answer = _after_hashes(text) if judging.lenient else answers.after_hashes(text)
    if not answer:
        return Verdict.of(False, 'nothing follows "####"')
    if judging.kind == "exact":
        same = answer == gold or (judging.lenient and answers.undressed(answer) == answers.undressed(gold))
        return Verdict.of(same, right)
    if judging.lenient:
        given = answers.loose_number(answer, judging.units)
    else:
        bare = next((answer[: -len(unit)].rstrip() for unit in judging.units if answer.endswith(unit)), answer)
        given = answers.number(bare.removeprefix("$"))
    if given is None:
        return Verdict.of(False, f"{right}; what is given is not a number alone")
    return Verdict.of(given == answers.number(gold.removeprefix("$")), right)


def _after_hashes(text: str) -> str | None:
    """As `answers.after_hashes`, where marks may stand round the hashes and the answer: **#### 42**."""
    answer = answers.after_hashes(text)
    if answer is None:
        return None
    before = text.rpartition("####")[0].rpartition("\n")[2].strip()
    mark = next((mark for mark in _MARKS if before == mark and answer.endswith(mark)), "")
    answer = answer.removesuffix(mark).rstrip()
    return answer[:-3].rstrip() if answer.endswith("\n```") and text.count("```") % 2 == 0 else answer
