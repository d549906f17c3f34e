"""Files of questions and answers as tasks: no code, one sentence for a bad line, ids that name what the file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay import registry
from selfplay.check_task import check_task
from selfplay.cli.main import call
from selfplay.contract import TaskSpec, Verdict
from selfplay.errors import UserError
from selfplay.task import Task, ruleset_digest, said

GSM8K = [
    {"question": f"{a} clips in April, half as many in May?", "answer": f"{a}/2=<<{a}/2={a // 2}>>.\n#### {a // 2:,}"}
    for a in range(2000, 2200, 2)
]
MATH = [
    {"problem": f"Solve ${a}x = 7$.", "solution": f"So $x = \\boxed{{\\frac{{7}}{{{a}}}}}$ and no other."}
    for a in range(50, 150)
]
PLAIN = [{"prompt": f"Is {n} even?", "answer": "no" if n % 2 else "yes"} for n in range(100)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def verdict(task: Task, seed: int, answer: str) -> Verdict:
    posed = task.pose(seed, 1)
    return task.judge(posed.problem, said(posed, [answer]))[0]


@pytest.mark.parametrize(("rows", "kind"), [(GSM8K, "number"), (MATH, "math"), (PLAIN, "exact")])
def test_it_keeps_the_contract(tmp_path: Path, rows: list[dict[str, str]], kind: str) -> None:
    if kind == "math":
        pytest.importorskip("math_verify")
    spec = registry.find_task(str(write(tmp_path / "My questions.jsonl", rows)))
    assert spec.id.startswith("jsonl/my_questions_") and f"compared as {kind}" in spec.summary
    report = check_task(spec)
    assert report.ok, report.findings
    assert (spec.solve is not None) == (kind != "exact")


def test_answers_are_judged(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    files = [write(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate((GSM8K, MATH))]
    tasks = [Task(registry.find_task(str(file))) for file in files]
    numbers, maths = tasks
    try:
        for answer in ("#### 1000", "so\n####1,000", "#### 5 #### $1000.0", "### #### +1000", "#### 10e2"):
            assert verdict(numbers, 0, answer).state == "accepted", answer
        wrong = ("1000", "#### 1000 or 5", "#### 1000\n#### 5", "####", "#### 500+500", "#### 1000x")
        for answer in wrong:
            assert verdict(numbers, 0, answer).state == "rejected", answer
        for answer in (r"\boxed{\frac{7}{50}}", r"\boxed{0.14}", r"\boxed{1}, no: $\boxed{x=7/50}$."):
            assert verdict(maths, 0, answer).state == "accepted", answer
        wrong = (r"\frac{7}{50}", r"\boxed{0.14} or \boxed{0.15}", r"\boxed{0.14,0.15}", r"\boxed{7:50}", r"\boxed{")
        for answer in wrong:
            assert verdict(maths, 0, answer).state == "rejected", answer
    finally:
        for task in tasks:
            task.close()


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (['{"question": "a", "answer": "1"}', '{"question": "b" "answer"}'], "line 2: is not JSON"),
        (['{"question": "a", "answer": "1"}', "", "[1]"], "line 3: must be an object"),
        (['{"question": "a", "answer": "1"}', '{"question": "b"}'], "line 2: the field 'answer' is missing"),
        (['{"question": "a", "answer": [1]}'], "line 1: the field 'answer' must be text or a number, and is [1]"),
        (['{"question": "a", "answer": " "}'], "line 1: the field 'answer' must be text or a number"),
        (['{"question": "a", "answer": "so ####"}'], "line 1: the answer is empty"),
        (['{"q": "a", "a": "1"}'], "line 1: which are question and answer? It has q, a; say ?question=…&answer=…"),
        (
            ['{"question": "a", "answer": "1"}', '{"question": "a", "answer": "2"}'],
            "line 2: asks what line 1 asks, and has another answer",
        ),
        ([], "has no lines"),
        (["[" * 100_000], "line 1: is not JSON"),
    ],
)
def test_a_bad_line_is_one_sentence(
    tmp_path: Path, lines: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as raised:
        registry.find_any(str(path))
    assert error in str(raised.value) and "\n" not in str(raised.value)
    assert call(["check-env", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_options_are_given_after_the_path(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", [{"q": f"{n}?", "a": f"{n}", "question": "x"} for n in range(5)])
    spec = registry.find_task(f"jsonl:{path}?question=q&answer=a")
    assert spec.prompt(spec.sample(3, 1))[0].content.startswith("3?") and "compared as number" in spec.summary
    exact = registry.find_task(f"{path}?question=q&answer=a&kind=exact")
    assert "compared as exact" in exact.summary and exact.id != spec.id
    for reference, error in (
        (f"{path}?kind=near", "no kind 'near', only exact, math, number"),
        (f"{path}?fields=q", "not fields=q"),
        (f"{path}?question=q&answer=z", "line 1: the field 'z' is missing"),
        (str(tmp_path / "none.jsonl"), "there is no file"),
    ):
        with pytest.raises(UserError) as raised:
            registry.find_any(reference)
        assert error in str(raised.value)
    path.write_bytes(b'{"question": "a", "answer": "1"}\n{"question": "\xff"}')
    with pytest.raises(UserError, match="line 2: is not UTF-8"):
        registry.find_any(str(path))


def test_the_id_names_what_the_file_holds_and_travels(tmp_path: Path) -> None:
    path = write(tmp_path / "clips.jsonl", GSM8K)
    spec = registry.find_task(str(path))
    (tmp_path / "other").mkdir()
    again = registry.find_task(f"jsonl:{write(tmp_path / 'other' / 'clips.jsonl', GSM8K)}")
    assert again.id == spec.id and registry.find_task(spec.id) is again
    assert registry.find_task(str(write(path, GSM8K[1:]))).id != spec.id
    portable = registry.pack(spec)
    there = registry.unpack_any(portable)
    assert isinstance(there, TaskSpec) and there.id == spec.id and ruleset_digest(there) == ruleset_digest(spec)
    assert registry.source_of(spec).text is None, "questions may not be ours to hand on"
    assert spec.licence == "NOASSERTION"


def test_every_line_comes_once_on_one_side(tmp_path: Path) -> None:
    task = Task(registry.find_task(str(write(tmp_path / "all.jsonl", PLAIN))))
    sides = []
    for held_out in (True, False):
        found = []
        with pytest.raises(UserError, match="has only"):
            for posed in task.problems(1, held_out):
                found.append(posed.digest)
        assert len(found) == len(set(found))
        sides.append(set(found))
    assert len(sides[0]) + len(sides[1]) == 100 and not sides[0] & sides[1] and len(sides[0]) >= 3


def test_who_judges_again_is_told_what_is_missing() -> None:
    from selfplay.store.truth import Rules

    rules = Rules([])
    told = rules._load_task("jsonl/clips_0123456789ab-v0", "0" * 64)
    assert told == (
        "jsonl/clips_0123456789ab-v0 is not installed; "
        "give the file of questions, clips.jsonl or what it is called now, by --env"
    )
