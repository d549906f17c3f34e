"""Answers to problems of reasoning-gym: read by our own rules, never run, and right only where they are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("reasoning_gym")

from envs.tasks import _gym_answers as by  # noqa: E402
from envs.tasks._gym_scored import SCORED  # noqa: E402
from envs.tasks.reasoning_gym import FAMILY, final, verify  # noqa: E402
from selfplay import registry  # noqa: E402
from selfplay.checks.hostile import payloads  # noqa: E402
from selfplay.cli.main import call  # noqa: E402
from selfplay.contract import Problem, Transcript, Turn  # noqa: E402
from selfplay.errors import UserError  # noqa: E402
from selfplay.task import Task, said  # noqa: E402

#: Those whose scorers hand an answer to `eval` or to sympy's parser.
EVALUATING = [
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
]  # fmt: skip


def right(check: by.Check, answer: str, gold: str, **about: object) -> bool:
    return check(answer, gold, about)


@pytest.mark.parametrize("name", EVALUATING)
def test_no_payload_runs_or_passes_and_none_harms_the_next(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    task = Task(registry.find_task(f"reasoning_gym/{name}"), confined=False)  # what ran would make the canary
    posed = task.pose(0, task.spec.difficulties[0])
    gold = str(posed.problem.data["answer"])
    touch = f"touch {canary}"
    texts = [text for text in payloads(canary, posed.messages[-1].content, gold).values() if text.strip() != gold]
    texts += [
        f"__import__('os').system({touch!r})", f"{gold}+0*__import__('os').system({touch!r})",
        f"[__import__('os').system({touch!r})]", f"({gold}, __import__('os').system({touch!r}))[0]",
        f"exec('import os; os.system({touch!r})') or {gold}", f"().__class__.__base__.__subclasses__() or {gold}",
        f"S({gold!r})", f"eval({gold!r})", f"lambda: {gold}", "9**9**9**9", "9**(9**(9**9))", "'x'*10**12",
        "[0]*10**12",
        f"{gold} is what it contains", f"{gold}\n{gold}", f"not {gold}",
    ]  # fmt: skip
    try:
        for text in texts:
            for answer in (text, f"<answer>{text}</answer>"):
                verdict = task.judge(posed.problem, said(posed, [answer]))[0]
                assert verdict.state != "accepted", answer[:200]
                assert not canary.exists(), answer[:200]
        assert task.judge(posed.problem, said(posed, [f"<answer>{gold}</answer>"]))[0].state == "accepted"
    finally:
        task.close()


@pytest.mark.parametrize("name", sorted(SCORED))
def test_scorers_are_given_nothing_that_could_run(name: str, tmp_path: Path) -> None:
    about = {"variable": "x", "variables": ["x", "y"]}
    for text in payloads(tmp_path / "canary", "?", "1").values():
        if SCORED[name].admits(text, about):
            assert len(text) < 2000 and set(text) <= set("0123456789()+-*/. "), text[:100]


@settings(max_examples=300)
@given(st.text("x0 9*+-/()._'\"[]{},:=\\eEClogsin", max_size=25))
def test_what_a_parser_is_given_has_only_known_names(text: str) -> None:
    if SCORED["simple_integration"].admits(text, {"variable": "x"}):
        assert not set(text) & set("_'\"[]{},:=\\")
        assert set(re.findall("[A-Za-z]+", text)) <= {"x", "C", "E", "exp", "log", "sin", "cos", "sec", "csc"}


@pytest.mark.parametrize(
    "text",
    ["Integral(2*x, x)", "x.diff", "x(2)", "2(x)", "C(1)", "x y", "2 x", "9**9**9", "9**(9**9)", "x**1000", "x**9.5",
     "(" * 13, "x" + "+1" * 200, "S(x)", "Symbol", "x;x", "x if x else x", "lambda: x", "x!", "É", "", "1_0", "x\\\n"],
)  # fmt: skip
def test_antiderivatives_are_strict(text: str) -> None:
    assert not SCORED["simple_integration"].admits(text, {"variable": "x"})


@pytest.mark.parametrize("text", ["x**2/2 + C", "-2*(10*x - 9)**(3/2) + C", "x*log(x) - x", "exp(-x**2)*sin(2*x)/3"])
def test_antiderivatives_are_admitted(text: str) -> None:
    assert SCORED["simple_integration"].admits(text, {"variable": "x"})


def test_puzzles_of_numbers_take_the_given_ones_once() -> None:
    for answer in ("(5+1)*(8/2)", "8*(5-2)*1", "-8 + 2 * (15+1)"):
        given_ = [15, 1, 8, 2] if "15" in answer else [5, 1, 8, 2]
        assert right(by.puzzle24, answer, "", numbers=given_), answer
    for answer in ("6*4*1*1", "24", "8*(5-2)", "8*(5-2)*1*1", "8*(5-2)**1", "8//1*(5-2)", "8 *(5-2)* 1=24", "4!", "",
                   "8*(5-2)*1.0", "1 2 + 12", "(" * 99, "+8*(5-2)*1", "8*(5-2)*1#"):  # fmt: skip
        assert not right(by.puzzle24, answer, "", numbers=[5, 1, 8, 2]), answer
    assert right(by.countdown, "-(3-9)*2", "", numbers=[9, 3, 2], target=12)
    assert not right(by.countdown, "0+(9-3)*2", "", numbers=[9, 3, 2], target=12)


def test_what_the_scorers_take_wrongly_is_wrong() -> None:
    assert not right(by.listed_numbers, "[NaN, NaN]", "['1', '2']")
    assert not right(by.listed_numbers, "['1.5', '2']", "['1', '2']")
    assert right(by.listed_numbers, "[1, 2.0]", "['1', '2']")
    for answer in ("0", "0.2", "0.", "nan", "1/0", "inf"):
        assert not right(by.close, answer, "0.25")
    assert right(by.close, "1/4", "0.25") and right(by.close, "595/2048", "0.2905273438")
    assert not right(by.complex_number, "nan", "5.0 + 10.0i") and not right(by.complex_number, "", "5.0 + 10.0i")
    assert right(by.complex_number, "5+10i", "5.0 + 10.0i") and right(by.complex_number, "-i", "0.0 - 1.0i")
    assert not right(by.numbers, "", "-2.029") and right(by.numbers, "2, -1", "-1.0, 2.0")
    assert not right(by.numeric, "72 or 73", "72") and right(by.numeric, "1,072.0", "1072")
    assert not right(by.plain_json, "[[0, 1], [1, 0], [1, 1]]", "[[0, 1], [1, 0]]")
    assert not right(by.plain_json, "NaN", "[[0, 1], [1, 0]]") and not right(by.plain_json, "[" * 10**5, "[[0]]")
    assert right(by.three_figures, "8.06e-6", "8.05544726166417e-06")
    assert not right(by.three_figures, "8.1e-6", "8.055e-06")
    assert right(by.rounded_grid, "5.67 6\n1 2", "5.666666 6.0\n1.0 2.0")
    assert not right(by.rounded_grid, "5.6 6", "5.666 6") and not right(by.rounded_grid, "nan", "5.0")
    halts = Problem(0, 0, {"question": "?", "answer": "True", "about": {}})
    told = verify("game_of_life_halting", halts, Transcript((Turn(0, "assistant", "<answer>False</answer>"),)))
    assert told.state == "rejected"


@given(st.text("<answer>/ x\n", max_size=60))
def test_an_answer_is_what_the_last_tags_hold(text: str) -> None:
    inside = final(text + "<answer> 7 </answer>\n")
    assert inside == "7"
    found = final(text)
    assert found is None or f"<answer>{found}" in text.replace(" ", "").replace("\n", "") or found.strip() in text
    assert final(text + "</answer> so") is None and final("x" * 70_000 + "<answer>7</answer>") is None


def test_one_line_tells_of_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["envs"]) == 0
    told = capsys.readouterr().out
    assert told.count("reasoning_gym/…") == 1 and f"({len(FAMILY.members)} tasks)" in told


def test_names_that_are_not_there_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for reference, error in (
        ("reasoning_gym/countdwn", "the nearest is 'reasoning_gym/countdown-v0'"),
        ("reasoning_gym/countdown-v7", "there is no environment 'reasoning_gym/countdown-v7'"),
        ("reasoning_gym/rush_hour", "reasoning_gym/rush_hour-v0 is left out: its problems come without an answer"),
    ):
        with pytest.raises(UserError) as raised:
            registry.find_task(reference)
        assert error in str(raised.value)
        assert call(["check-env", reference]) == 2 and "Traceback" not in capsys.readouterr().err
    assert registry.find_task("reasoning_gym/gcd") is registry.find_task("reasoning_gym/gcd-v0")


def test_without_the_package_it_is_one_sentence_and_others_are_found() -> None:
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from selfplay.cli.main import call\n"
        "assert call(['envs']) == 0\n"
        "sys.exit(call(['check-env', 'reasoning_gym/countdown-v0']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "needs the package reasoning_gym" in ran.stderr.replace("\n", " ")
    assert "pip install 'selfplay-factory[tasks]'" in ran.stderr.replace("\n", " ")
