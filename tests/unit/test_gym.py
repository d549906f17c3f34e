"""Answers to problems of reasoning-gym: read by our own rules, never run, and right only where they are right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("reasoning_gym")

from envs.tasks import _gym_answers as by  # noqa: E402
from envs.tasks._gym_scored import SCORED  # noqa: E402
from envs.tasks.reasoning_gym import FAMILY, final, sample, verify, verify_lenient  # noqa: E402
from selfplay.cli.main import call  # noqa: E402
from selfplay.contract import Problem, Transcript, Turn  # noqa: E402
from selfplay.environments import registry  # noqa: E402
from selfplay.environments.checks.hostile import payloads  # noqa: E402
from selfplay.environments.task import Task, said  # noqa: E402
from selfplay.errors import UserError  # noqa: E402

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
    about = {"variable": "x", "variables": ["x", "y"], "puzzle": {"vertices": [0, 1]}}
    for text in payloads(tmp_path / "canary", "?", "1").values():
        if SCORED[name].admits(text, about):
            assert len(text) < 2000 and set(text) <= set("0123456789()+-*/. "), text[:100]


INTEGRAL = {"variable": "x", "integrand": "2*x"}


@pytest.mark.parametrize(
    "text",
    ["Integral(2*x, x)", "x**2.diff", "x**2 + 1/0", "x**2 + zoo", "x**2 + nan", "x**2 + oo", "x**2 + log(0)", "9**9**9",
     "9**(9**9)", "x**1000", "(" * 13 + "x**2" + ")" * 13, "x" + "+1" * 200, "S(x**2)", "Symbol('x')", "x**2;x**2",
     "x**2 if x else x", "lambda: x**2", "x**2!", "É", "", "1_0", "x**2\\\n", "0\nx**2", "x**2 + y", "x**2 is right",
     "(x+1)**99*(x+2)**99*(x+3)**99*(x+4)**99", "*".join(f"(x+{i})**99" for i in range(20))],
)  # fmt: skip
def test_what_is_no_antiderivative(text: str) -> None:
    began = time.process_time()
    assert not right(by.antiderivative, text, "x**2 + C", **INTEGRAL)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("text", ["x**2 + C", "x**2", "C + (x+1)**2 - 2*x", "x*x - 7", "2*(x**2/2 + C)"])
def test_antiderivatives_in_any_form(text: str) -> None:
    assert right(by.antiderivative, text, "x**2 + C", **INTEGRAL)


@settings(max_examples=200, deadline=None)
@given(st.text("x0 9*+-/()._'\"[]{},:=\\eEClogsin", max_size=25))
def test_any_text_is_a_readable_antiderivative_or_none(text: str) -> None:
    if right(by.antiderivative, text, "x**2 + C", **INTEGRAL):
        assert not set(text) & set("_'\",:=")


def test_knights_and_knaves_are_named_each_once_and_nothing_else_is_said() -> None:
    gold = "Zoey is a knight, Ann is a knave, and Bo is an angel."
    for answer in (gold, gold[:-1], "Bo is an angel, Ann is a knave and Zoey is a knight", gold.lower()):
        assert right(by.roles, answer, gold), answer
    for answer in (
        f"It is false that {gold}", f"Not {gold}", f"not {gold}", gold.replace("is a knight", "is not a knight"),
        gold.replace("knight", "knight a knave"), gold.replace("knight", "knight knave angel"), f"{gold} {gold}", "",
        gold.replace("Ann is a knave, ", ""), f"{gold} Ann is a knight.", gold.replace("knave", "knight"), f"{gold} no",
        f"Zoey is a knave, {gold}", gold.replace("Ann", "An"), gold.replace("is", "isn't"), "Zoey Ann Bo", f"{gold}..",
        "Zoey is a knight or Ann is a knave, and Bo is an angel", f"if {gold}", f"{gold[:-1]}, and Cy is a knave.",
        "Zoey is a knight, Ann is a knave, and Bo is an angel, and not",
    ):  # fmt: skip
        assert not right(by.roles, answer, gold), answer


def test_survo_takes_every_right_filling_and_no_other() -> None:
    # Two rows may change places in the empty cells, so there are several fillings; all orders are tried.
    puzzle = [[0, 0, 5, 10], [0, 0, 3, 8], [0, 0, 5, 13], [7, 11, 13, 31]]
    about = {"puzzle": puzzle, "candidate_numbers": [1, 4, 4, 1, 2, 6]}
    accepted = set()
    for values in set(permutations(about["candidate_numbers"])):
        board = [[*values[2 * i : 2 * i + 2], *puzzle[i][2:]] for i in range(3)] + [puzzle[3]]
        sums = all(sum(row[:-1]) == row[-1] for row in (*board, *zip(*board, strict=True)))
        assert right(by.survo, "\n".join(" ".join(map(str, row)) for row in board), "", **about) == sums
        accepted |= {values} if sums else set()
    assert accepted >= {(1, 4, 4, 1, 2, 6), (4, 1, 1, 4, 2, 6)}
    problem = sample("survo", 3, 1)
    assert right(by.survo, problem.data["answer"], "", **problem.data["about"])
    small = {"puzzle": [[0, 0, 3], [0, 0, 3], [3, 3, 6]], "candidate_numbers": [1, 2, 2, 1]}
    assert right(by.survo, "1 2 3\n2 1 3\n3 3 6", "", **small) and right(by.survo, "2 1 3\n1 2 3\n3 3 6", "", **small)
    for answer in ("3 0 3\n0 3 3\n3 3 6", "1 2 3\n2 1 3\n3 3 7", "1 2 3\n2 1 3", "1 2 3 4\n2 1 3\n3 3 6", "",
                   "1 1 3\n2 2 3\n3 3 6", "1.5 1.5 3\n1.5 1.5 3\n3 3 6", "1 2 3\n2 1 3\n3 3 6\n", "a b 3\n2 1 3\n3 3 6",
                   "1 2 3\n2 1 3\n3 3 6\n1 2 3"):  # fmt: skip
        assert right(by.survo, answer, "", **small) == (answer.strip() == "1 2 3\n2 1 3\n3 3 6"), answer


def test_a_graph_is_coloured_vertex_by_vertex() -> None:
    about = {"puzzle": {"vertices": [0, 1, 2]}}
    admits = SCORED["graph_color"].admits
    assert admits('{"0": 1, "2": 1, "1": 3}', about)
    for answer in ('{"0": 1, "1": 2}', '{"0": 1, "1": 2, "2": 1, "3": 1}', '{"0": 1, "1": 2, "2": 1, "2": 3}', "{}"):
        assert not admits(answer, about), answer


def test_white_space_joins_no_digits_and_no_words() -> None:
    for check, answer, gold in (
        (by.spaceless, "2 × 4 21", "2 × 421"), (by.spaceless, "1334 9886", "13349886"), (by.spaceless, "1 .5", "1.5"),
        (by.caseless, "the re", "there"), (by.degrees, "38 .77", "38.77°"),
        (by.complex_number, "0\n8.0 + 7.0i", "8+7i"), (by.complex_number, "8 .0 + 7.0i", "8+7i"),
    ):  # fmt: skip
        assert not right(check, answer, gold), answer
    assert right(by.spaceless, "2×421", "2 × 421") and right(by.complex_number, "8+7i", "8.0 + 7.0i")
    assert right(by.degrees, "(1.5,-2)", "(1.5, -2)") and right(by.caseless, "A  B\nc", "a b C")


def test_a_lenient_task_takes_an_answer_in_dress_and_a_strict_one_does_not() -> None:
    problem = sample("gcd", 0, 0)
    own = problem.data["answer"]
    dressed = [f"<answer>**{own}**</answer>", f"<answer>{own}.</answer>", f"<answer>${own}$</answer>",
               f"```\n<answer>{own}</answer>\n```", f"**<answer>{own}</answer>**", f"<answer>\\boxed{{{own}}}</answer>",
               f"<answer>`{own}`</answer>."]  # fmt: skip
    for text in dressed:
        said_ = Transcript((Turn(0, "assistant", text),))
        assert verify_lenient("gcd", problem, said_).state == "accepted", text
        assert verify("gcd", problem, said_).state == "rejected", text
    wrong = ("<answer>**{}** or 7</answer>", "<answer>**1{}**</answer>", "**{}**", "<answer>{}</answer> 7")
    for text in (form.format(own) for form in wrong):
        assert verify_lenient("gcd", problem, Transcript((Turn(0, "assistant", text),))).state == "rejected", text
    spec = registry.find_task("reasoning_gym/gcd_lenient")
    assert spec.id == "reasoning_gym/gcd_lenient-v1" and registry.find_task(spec.id) is spec


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
        ("reasoning_gym/countdwn", "the nearest is 'reasoning_gym/countdown-v1'"),
        ("reasoning_gym/countdown-v7", "there is no environment 'reasoning_gym/countdown-v7'"),
        ("reasoning_gym/rush_hour", "reasoning_gym/rush_hour-v1 is left out: its problems come without an answer"),
    ):
        with pytest.raises(UserError) as raised:
            registry.find_task(reference)
        assert error in str(raised.value)
        assert call(["check-env", reference]) == 2 and "Traceback" not in capsys.readouterr().err
    assert registry.find_task("reasoning_gym/gcd") is registry.find_task("reasoning_gym/gcd-v1")
    assert registry.find_task("reasoning_gym/survo").id == "reasoning_gym/survo-v2"
    before = registry.find_task("reasoning_gym/survo-v1")
    assert before.id == "reasoning_gym/survo-v1" and before.key is None
    with pytest.raises(UserError, match="there is no environment 'reasoning_gym/survo-v0'"):
        registry.find_task("reasoning_gym/survo-v0")


def test_without_the_package_it_is_one_sentence_and_others_are_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['reasoning_gym'] = None")
    code = (
        "import sys\n"
        "from selfplay.cli.main import call\n"
        "assert call(['envs']) == 0\n"
        "sys.exit(call(['check-env', 'reasoning_gym/countdown']))"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "needs the package reasoning_gym" in ran.stderr.replace("\n", " ")
    assert "[tasks]'" in ran.stderr.replace("\n", " ")
