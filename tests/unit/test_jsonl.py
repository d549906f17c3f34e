"""Files of questions and answers as tasks: no code, one sentence for a bad line, ids that name what the file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay.cli.main import call
from selfplay.contract import TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import registry
from selfplay.environments.checks.task_check import check_task
from selfplay.environments.task import SIDES, Task, ruleset_digest, said
from selfplay.errors import UserError

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
    spec = registry.find_task(str(write(tmp_path / "My questions.jsonl", rows)))
    assert spec.id.startswith("jsonl/my_questions_") and f"compared as {kind}" in spec.summary
    report = check_task(spec)
    assert report.ok, report.findings
    assert (spec.solve is not None) == (kind != "exact")


def test_answers_are_judged(tmp_path: Path) -> None:
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
        (f"{path}?dress=any", "no dress 'any', only lenient, strict"),
        (f"{path}?held_out=0.3", "held_out is a share from 1/2 to 1/99, such as 1/4, not 0.3"),
        (f"{path}?question=q&answer=a&units=5", "units are words"),
        (f"{path}?question=q&answer=a&kind=exact&units=km", "units= is for numbers"),
        (f"{path}?question=q&answer=z", "line 1: the field 'z' is missing"),
        (str(tmp_path / "none.jsonl"), "there is no file"),
    ):
        with pytest.raises(UserError) as raised:
            registry.find_any(reference)
        assert error in str(raised.value)
    path.write_bytes(b'{"question": "a", "answer": "1"}\n{"question": "\xff"}')
    with pytest.raises(UserError, match="line 2: is not UTF-8"):
        registry.find_any(str(path))


DRESSED = ["#### **1000**", "**#### 1000**", "#### $1000$", "#### 1000.", "```\n#### 1000\n```",
           "#### `1000`", "#### \\boxed{1000}", "#### 1 000", "#### 1e3", "#### $ 1000"]  # fmt: skip


def test_dress_is_taken_or_not_as_the_task_says(tmp_path: Path) -> None:
    path = write(tmp_path / "dressed.jsonl", GSM8K)
    lenient, strict = registry.find_task(str(path)), registry.find_task(f"{path}?dress=strict")
    assert lenient.id != strict.id
    for spec, states in ((lenient, {"accepted"}), (strict, {"rejected"})):
        problem = spec.sample(0, 1)
        found = {text: spec.verify(problem, told(text)).state for text in DRESSED}
        assert set(found.values()) == states, found
        assert spec.verify(problem, told("#### 1,000")).state == "accepted"
        wrong = ("#### **1000** or 5", "#### 1000 clips", "#### -$-1000", "#### 1000%", "#### 10 00")
        for text in wrong:
            assert spec.verify(problem, told(text)).state == "rejected", text
    spec = registry.find_task(f"{path}?units=clips,small clips")
    assert spec.verify(spec.sample(0, 1), told("#### 1000 clips.")).state == "accepted"
    assert spec.verify(spec.sample(0, 1), told("#### 1000 apples")).state == "rejected"
    words = registry.find_task(str(write(tmp_path / "words.jsonl", PLAIN)))
    assert words.verify(words.sample(0, 1), told("#### **yes**.")).state == "accepted"
    assert words.verify(words.sample(0, 1), told("#### not **yes**")).state == "rejected"


def told(text: str) -> Transcript:
    return Transcript((Turn(0, "assistant", text),))


def test_a_verdict_on_mathematics_says_why(tmp_path: Path) -> None:
    spec = registry.find_task(str(write(tmp_path / "maths.jsonl", MATH)))
    verdict_ = spec.verify(spec.sample(0, 1), told(r"\boxed{0.15}"))
    assert isinstance(verdict_, Verdict)
    assert verdict_.criteria[0].reason == r"the answer is \frac{7}{50}; the one given: it has another value"


ASKED = {"role": "user", "content": "6*7?"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [SYSTEM, ASKED, {"role": "assistant", "content": "6*7 = 42\n#### 42"}]},
        {"messages": [SYSTEM, ASKED], "answer": "42"},
        {"prompt": [SYSTEM, ASKED], "completion": [{"role": "assistant", "content": "42"}]},
        {"prompt": [SYSTEM, ASKED], "solution": "so \\boxed{42}"},
        {"data_source": "x", "prompt": [SYSTEM, ASKED], "reward_model": {"style": "rule", "ground_truth": "42"}},
        {"prompt": [SYSTEM, ASKED], "ground_truth": 42, "extra_info": {"index": 0}},
    ],
)
def test_conventional_formats_need_no_options(tmp_path: Path, row: dict[str, object]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    spec = registry.find_task(str(path))
    problem = spec.sample(0, 1)
    system, question = spec.prompt(problem)
    assert (system.role, system.content) == ("system", "Be brief.") and question.content.startswith("6*7?\n\n")
    assert spec.gold is not None and "42" in spec.gold(problem)
    assert spec.verify(problem, told(spec.gold(problem))).state == "accepted"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"messages": [ASKED, {"role": "assistant", "content": "a"}, ASKED], "answer": "1"}, "conversation of several"),
        ({"messages": [ASKED, {"role": "robot", "content": "a"}], "answer": "1"}, "need the roles system, user"),
        ({"messages": [ASKED]}, "which are question and answer? It has messages"),
        ({"messages": ["6*7?"], "answer": "1"}, "need the roles"),
        ({"messages": [SYSTEM], "answer": "1"}, "conversation of several"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}], "answer": "1"}, "must be text or a number"),
        ({"messages": [], "answer": "1"}, "conversation of several"),
    ],
)
def test_what_is_no_single_question_is_one_sentence(tmp_path: Path, row: dict[str, object], error: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(UserError, match="line 1") as raised:
        registry.find_task(str(path))
    assert error in str(raised.value)


def test_a_small_file_says_how_many_problems_it_has_and_what_helps(tmp_path: Path) -> None:
    path = write(tmp_path / "few.jsonl", PLAIN[:12])
    report = check_task(registry.find_task(str(path)))
    said_ = " ".join(str(finding.problem) for finding in report.findings if finding.problem)
    assert not report.ok and "held-out problems of difficulty 1" in said_ and "one in 10 is held out" in said_
    assert "?held_out=1/4" in said_ and "at least 3 held-out and 20 training problems are needed" in said_
    task = Task(registry.find_task(f"{write(tmp_path / 'all.jsonl', PLAIN)}?held_out=1/2"))
    held = [task.pose(seed, 1).held_out for seed in range(100)]
    assert 30 < sum(held) < 70


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
    for side in SIDES:
        found = []
        with pytest.raises(UserError, match="has only"):
            for posed in task.problems(1, side):
                found.append(posed.digest)
        assert len(found) == len(set(found))
        sides.append(set(found))
    assert sum(map(len, sides)) == len(set.union(*sides)) == 100 and len(sides[2]) >= 3


def test_who_judges_again_is_told_what_is_missing() -> None:
    from selfplay.store.verify.episode import Missing, Rules

    rules = Rules([])
    told = rules._load_task("jsonl/clips_0123456789ab-v1", "0" * 64)
    assert isinstance(told, Missing) and told.reason == (
        "jsonl/clips_0123456789ab-v1 is not installed; "
        "give the file of questions, clips.jsonl or what it is called now, by --env"
    )
    told = rules._load_task("jsonl/clips_0123456789ab-v0", "0" * 64)
    assert isinstance(told, Missing) and "answers of v0 were compared by rules that are gone" in told.reason
