"""A task as the factory uses it: verdicts that are checked, verifiers that may die, a split that cannot leak."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.contract import Criterion, Message, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import registry
from selfplay.environments.author import judge
from selfplay.environments.checks.task_check import check_task
from selfplay.environments.task import SIDES, Task, said
from selfplay.errors import UserError

PARITY = registry.find_task("parity")

#: A verifier that does what the answer says.
WILD = """
import os, sys, tempfile, time
from selfplay.contract import *

def sample(seed, difficulty):
    return Problem(seed, difficulty, {"n": seed})

def verify(problem, transcript):
    answer = transcript.answer
    if answer == "die":
        os._exit(3)
    if answer == "hang":
        time.sleep(60)
    if answer == "eat":
        return Verdict.of(len(bytearray(64 * 2**30)) > 0)
    if answer == "raise":
        raise RuntimeError("no idea")
    if answer == "print":
        print("{}", flush=True)
        sys.stderr.write("noise")
    if answer == "read":
        sys.stdin.read()
    if answer == "write":
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"x")
    if answer == "nonsense":
        return 5
    return Verdict.of(answer == str(problem.data["n"]))

SPEC = TaskSpec(
    id="wild-v0", summary="Says what it is told.", sample=sample, verify=verify, timeout_s=1.0,
    prompt=lambda problem: [Message("user", str(problem.data["n"]))], gold=lambda problem: str(problem.data["n"]),
)
"""


class Apart(Task):
    """Reads every transcript in a process of its own, whatever the task says."""

    def apart(self, transcript: Transcript) -> bool:
        return True


def transcript(answer: str) -> Transcript:
    return Transcript((Turn(0, "user", "?"), Turn(0, "assistant", answer)))


@pytest.fixture
def wild() -> TaskSpec:
    spec = registry.load_source(WILD, "wild.py")
    assert isinstance(spec, TaskSpec)
    return spec


def test_a_verifier_that_dies_hangs_or_raises_is_never_a_zero(wild: TaskSpec) -> None:
    isolated = Task(wild)
    problem = Problem(7, 1.0, {"n": 7})

    def ask(answer: str) -> Verdict:
        (verdict,) = isolated.judge(problem, transcript(answer))
        return verdict

    try:
        for answer, error in (
            ("die", "died (exit status 3)"),
            ("hang", "longer than 1 s"),
            ("eat", "MemoryError"),
            ("raise", "RuntimeError: no idea"),
            ("write", "No usable temporary directory"),
            ("nonsense", "which is no verdict"),
        ):
            verdict = ask(answer)
            assert (verdict.state, verdict.reward) == ("unverifiable", None) and error in verdict.error, verdict
            assert ask("7") == Verdict.of(True) and ask("8") == Verdict.of(False), f"after {answer}"
        for answer in ("print", "read"):
            assert ask(answer) == Verdict.of(False), "what it prints or reads is not part of the exchange"
    finally:
        isolated.close()


def test_isolated_and_not_say_the_same() -> None:
    isolated, task = Apart(PARITY), Task(PARITY)
    try:
        for seed in range(20):
            posed = task.pose(seed, 8)
            for answer in ("0", "1", "01", "x", "", "\ud800", "é" * 10, PARITY.gold(posed.problem)):
                there = isolated.judge(posed.problem, said(posed, [answer]))
                assert there == task.judge(posed.problem, said(posed, [answer])), answer
    finally:
        isolated.close()


@pytest.mark.parametrize(
    ("given_", "error"),
    [
        (Verdict("maybe", 1.0), "which is no verdict"),
        (Verdict("accepted", None), "is accepted and its reward is None"),
        (Verdict("unverifiable", 0.0), "is unverifiable and its reward is 0.0"),
        (Verdict("accepted", float("nan")), "a reward is nan"),
        (Verdict("accepted", 1.0, (Criterion("format", 2.0),)), "criterion 'format' has the score 2.0"),
        ((Verdict.of(True), Verdict.of(True)), "gave 2 verdicts for 1 seats"),
        ("yes", "which is no verdict"),
    ],
)
def test_what_is_no_verdict_is_unverifiable(given_: object, error: str) -> None:
    spec = dataclasses.replace(PARITY, verify=lambda problem, transcript: given_)
    (verdict,) = judge(spec, Problem(0, 8, {"bits": "0"}), transcript("0"))
    assert verdict.state == "unverifiable" and error in verdict.error


@given(st.integers(0, 2**31), st.sampled_from(PARITY.difficulties))
def test_a_question_is_on_one_side_of_the_split_whatever_made_it(seed: int, difficulty: float) -> None:
    task = Task(PARITY)
    one = task.pose(seed, difficulty)
    assert one == task.pose(seed, difficulty)
    assert one.digest == task.pose(seed, difficulty).digest
    other = dataclasses.replace(one, problem=Problem(seed + 1, difficulty, one.problem.data))
    assert one.held_out == other.held_out


def test_the_sides_of_the_split_do_not_touch() -> None:
    task = Task(PARITY)
    sides = []
    for side in SIDES:
        source = task.problems(12, side)
        sides.append({next(source).messages for _ in range(100)})
    assert len(set.union(*sides)) == 300
    with pytest.raises(UserError, match="has only .* held-out problems of difficulty 4"):
        list(task.problems(4, "held_out"))


def test_a_task_is_no_game_and_a_game_no_task() -> None:
    with pytest.raises(UserError, match="parity-v0 is a task, and a game is needed here"):
        registry.find("parity")
    with pytest.raises(UserError, match="tic_tac_toe-v0 is a game, and a task is needed here"):
        registry.find_task("tic_tac_toe")


def faulty(**changes: object) -> dict[str, str]:
    """The problems that `check_task` finds in a parity with these changes."""
    report = check_task(dataclasses.replace(PARITY, **changes))
    return {finding.name: finding.problem for finding in report.findings if finding.problem is not None}


def test_check_finds_faults() -> None:
    assert faulty() == {}
    counter = iter(range(10**6))
    found = faulty(sample=lambda seed, difficulty: Problem(seed, difficulty, {"bits": f"{next(counter):b}"}))
    assert "made again, the problem is another" in found["problems are made again"]
    found = faulty(sample=lambda seed, difficulty: Problem(seed, difficulty, {"bits": ("0", "1")}))
    assert "tuples become lists" in found["problems are made again"]
    found = faulty(gold=lambda problem: "2")
    assert "'2' is rejected: not a string" in found["gold answers are accepted"]
    found = faulty(verify=lambda problem, transcript: Verdict.of(True))
    hostile = "hostile text neither runs, hangs nor passes"
    assert set(found) == {"wrong answers are not", "answers are not given away", hostile}
    found = faulty(verify=lambda problem, said: Verdict.of(int(said.answer[-1]) == int(PARITY.gold(problem))))
    assert "is too much for verify" in found["hostile text neither runs, hangs nor passes"]
    found = faulty(verify=lambda problem, said: Verdict.of(eval(said.answer or "0") == int(PARITY.gold(problem))))
    assert "hostile text neither runs, hangs nor passes" in found
    assert "has only" in faulty(difficulties=(2.0,))["problems enough to train on and to hold out"]


def test_the_command_tells_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    from selfplay.cli.main import call

    assert call(["check-env", "parity"]) == 0
    told = capsys.readouterr().out
    assert "all checks passed" in told and "worked" in told
    assert call(["check-env", "parity", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_messages_are_what_the_prompt_says() -> None:
    spec = dataclasses.replace(PARITY, prompt=lambda problem: [Message("assistant", "x")])
    with pytest.raises(UserError, match="prompt must give messages with the roles system, user, tool"):
        Task(spec).pose(0, 8)
    spec = dataclasses.replace(PARITY, sample=lambda seed, difficulty: Problem(0, difficulty, {}))
    with pytest.raises(UserError, match=r"sample\(5, 8\) must give Problem"):
        Task(spec).pose(5, 8)
