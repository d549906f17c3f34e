"""The data sets of reasoning-gym (https://github.com/open-thought/reasoning-gym, Apache-2.0), each a task.

Problem:
    `reasoning_gym/NAME` asks what the data set NAME asks, and says where to write the answer. The problem of a seed
    and a difficulty is the entry of the data set's own generator whose index is a hash of the name, the seed and the
    level; where that entry has no answer, the next hash. data: {"question", "answer", "about"}: the question, the data
    set's own answer, and what judging needs of the metadata.

Answer:
    What stands between the last <answer> and the </answer> that ends the text, without white space around it. Anything
    may be written before. It is accepted if it is right, and there is no partial credit: not for containing the answer,
    nor for a near one. `_gym_sets.py` names the check of each data set. None evaluates the answer: texts are compared
    or parsed here (`_gym_answers.py`), or handed to the data set's scorer if they follow a strict grammar
    (`_gym_scored.py`), and are then right if its score is 1. These checks take less than the scorers of
    reasoning-gym where those take what is wrong (puzzle24: any four numbers; number_sorting: [NaN, NaN]; coin_flip:
    0 for 0.25; complex_arithmetic: nan; graph_color: vertices that there are not; game_of_life_halting: anything;
    integrals: "Integral(…)", which does not integrate, and "F + 1/0"; knights_knaves: words before a name and a
    second role after the first), and survo takes every right filling, of which its scorer knows one.

    `reasoning_gym/NAME_lenient` asks the same and takes an answer also in the dress that chat models give it: **…**,
    $…$, a code fence, a full stop, also round the tags.

Difficulty:
    The level of the data set's curriculum, from 0; 0 alone where it has none.

Version history:
    v0: first version.
    v1: knights_knaves takes statements alone; survo takes every right filling; the two integrals are differentiated by
        numbers, so that what is undefined, such as F + 1/0, is wrong and no answer takes long. Where white space does
        not count, it still does between digits and between letters: 2 x 4 21 is not 2 x 421. graph_color takes one
        colour for each vertex and nothing else.
    v2 (v1 of the data sets that were v0): the same questions and verdicts; what is held out is chosen by problem, not
        by text: see `key`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from functools import cache, partial
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

from envs.tasks import _gym_answers as by
from envs.tasks import _gym_sets as sets
from envs.tasks._gym_scored import SCORED
from selfplay.contract import Message, Problem, TaskFamily, TaskSpec, Transcript, Verdict, answers, normalised

#: Characters of an answer; a longer one is wrong.
LIMIT = 60_000
ASKED = "Write your final answer between <answer> and </answer>, with nothing after it."
#: What the name of a data set ends in where answers of chat models are taken with what dresses them.
LENIENT = "_lenient"
_NO_ANSWER = "the text does not end in <answer>…</answer>, or is too long"
_INDICES = 2**31 - 1
#: sha256 of this file before its data sets had keys.
_BEFORE_KEY = "ce218a5e9d89ca4eeb154ba8046249fc8104ea9b2296f4da98a4580195b3bb64"
_WORDS = re.compile(r"\w+|[^\w\s]")


def make(member: str) -> TaskSpec:
    """The task of a data set, strict or lenient. Raises `ImportError` without reasoning-gym."""
    name = member.removesuffix(LENIENT)
    if find_spec("reasoning_gym") is None:
        raise ModuleNotFoundError("reasoning-gym is missing", name="reasoning_gym")
    levels = tuple(map(float, sets.LEVELS[name]))
    if name in SCORED:  # the verifier's process needs it; where it does not, it stays small, and its copies are quick
        for level in sets.LEVELS[name]:
            _data_set(name, level)
    if sets.CHECKS.get(name) is by.antiderivative:
        answers.is_antiderivative("x", "1", "x")  # loads what it needs once, not in each copy of the verifier's process
    return TaskSpec(
        id=FAMILY.id_of(member),
        summary=f"{name.replace('_', ' ').capitalize()}, of reasoning-gym{', in any dress' * (member != name)}.",
        sample=partial(sample, name),
        prompt=prompt,
        verify=partial(verify if member == name else verify_lenient, name),
        gold=gold,
        difficulties=levels,
        timeout_s=10.0,
        licence="Apache-2.0",
        key=partial(key, name),
        before_key=(f"{FAMILY.name}/{member}-v{FAMILY.version_of(member) - 1}", _BEFORE_KEY),
    )


def sample(name: str, seed: int, difficulty: float) -> Problem:
    entry, answer = _entry(name, seed, int(difficulty))
    needs = SCORED[name].needs if name in SCORED else sets.NEEDS.get(name, ())
    about = {key: entry["metadata"][key] for key in needs}
    plain = json.loads(json.dumps({"question": entry["question"], "answer": answer, "about": about}, default=_plain))
    return Problem(seed, difficulty, plain)


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['question'].rstrip()}\n\n{ASKED}")]


def key(name: str, problem: Problem) -> str:
    """The numbers alone, or the words without their order, where they are the problem; else the question."""
    if name in sets.BY_NUMBERS:
        return ",".join(map(str, sorted(problem.data["about"]["numbers"])))
    question = normalised(problem.data["question"])
    return " ".join(sorted(_WORDS.findall(question))) if name in sets.UNORDERED else question


def gold(problem: Problem) -> str:
    return f"<answer>{problem.data['answer']}</answer>"


def verify(name: str, problem: Problem, transcript: Transcript) -> Verdict:
    answer = final(transcript.answer)
    if answer is None:
        return Verdict.of(False, _NO_ANSWER)
    return _judged(name, problem, answer)


def verify_lenient(name: str, problem: Problem, transcript: Transcript) -> Verdict:
    """As `verify`; what is wrong as it is written may be right without its dress, such as **…** and a full stop."""
    inside = final(transcript.answer.rstrip().rstrip("`*_$.").rstrip())
    if inside is None:
        return Verdict.of(False, _NO_ANSWER)
    verdict, bare = _judged(name, problem, inside), answers.undressed(inside)
    return verdict if verdict.state == "accepted" or bare == inside else _judged(name, problem, bare)


def _judged(name: str, problem: Problem, answer: str) -> Verdict:
    own, about = problem.data["answer"].strip(), problem.data["about"]
    if name not in SCORED:
        return Verdict.of(sets.CHECKS[name](answer, own, about), f"the data set's answer is {own[:200]}")
    if not SCORED[name].admits(answer, about):
        return Verdict.of(False, "the answer is not written as it has to be")
    entry = {"question": problem.data["question"], "answer": problem.data["answer"], "metadata": dict(about)}
    score = _data_set(name, int(problem.difficulty)).score_answer(answer, entry)
    return Verdict.of(score == 1.0, f"the data set's scorer says {float(score):.3g}; its answer is {own[:200]}")


def final(text: str) -> str | None:
    """What stands between the last <answer> and the </answer> at the end; None where there is no such thing."""
    if len(text) > LIMIT or not text.rstrip().endswith("</answer>"):
        return None
    _, opened, inside = text.rstrip().removesuffix("</answer>").rpartition("<answer>")
    return inside.strip() if opened and "</answer>" not in inside else None


def _entry(name: str, seed: int, level: int) -> tuple[dict[str, Any], str]:
    """An entry and its answer. An index whose entry cannot be made, or has no answer, is left for the next one."""
    for attempt in range(100):
        hashed = int(sha256(f"{name} {seed} {level} {attempt}".encode()).hexdigest(), 16) % _INDICES
        with contextlib.redirect_stdout(io.StringIO()):  # some print
            try:
                entry = _indexed(name, level, hashed)
            except (ValueError, RuntimeError):  # "failed to generate"
                continue
        answer = _own_answer(name, entry)
        if answer.strip():
            return entry, answer
    raise ValueError("100 entries in a row cannot be made, or have no answer")


def _indexed(name: str, level: int, index: int) -> dict[str, Any]:
    entry: dict[str, Any]
    if name in sets.EACH_ITS_OWN:
        entry = _made(name, level, index, 1)[0]
    else:
        entry = _data_set(name, level)[index]
    return entry


def _own_answer(name: str, entry: Mapping[str, Any]) -> str:
    """The data set's answer; some keep it in the metadata."""
    about = entry["metadata"]
    if name == "rubiks_cube":
        return str(about["example_correct_answer"])
    if name == "graph_color":
        return json.dumps({str(vertex): colour for vertex, colour in about["possible_answer"].items()})
    answer = str(entry["answer"])
    return "" if "Integral(" in answer or "No solution" in answer else answer  # the data set has not solved it


def _plain(value: Any) -> Any:
    """What numpy has for numbers and texts."""
    return value.item() if hasattr(value, "item") else str(value)


@cache
def _data_set(name: str, level: int) -> Any:
    return _made(name, level, 0, 1 if name in sets.EACH_ITS_OWN else _INDICES + 1)


def _made(name: str, level: int, seed: int, size: int) -> Any:
    from reasoning_gym.factory import CURRICULA, DATASETS

    if name not in DATASETS:
        raise ValueError("the installed reasoning-gym does not have it")
    data_set, config = DATASETS[name]
    if name not in CURRICULA:
        return data_set(config(seed=seed, size=size))
    curriculum = CURRICULA[name]()
    curriculum.set_global_level(level)
    return data_set(curriculum.generate_configuration({"seed": seed, "size": size}))


FAMILY = TaskFamily(
    name="reasoning_gym",
    summary="Data sets of reasoning-gym, such as countdown.",
    members=tuple(sorted(name + dress for name in (*sets.CHECKS, *SCORED) for dress in ("", LENIENT))),
    make=make,
    left_out=sets.LEFT_OUT,
    version=sets.VERSION,
    extra="selfplay-factory[tasks]",
    versions={name + dress: number for name, number in sets.VERSIONS.items() for dress in ("", LENIENT)},
)
