"""An author's code in processes of its own: what it says counts once, in time and well formed; nothing else does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from selfplay.contract import Next, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import registry
from selfplay.environments.author import Failure
from selfplay.environments.isolation import host, wire
from selfplay.environments.judging import Judging
from selfplay.environments.task import Posed, Task, said
from selfplay.errors import UserError

#: Does what the answer, or the seed, says.
DOES = '''
import os, time
from selfplay.contract import *

def sample(seed, difficulty):
    print("sampling")
    if seed == 666:
        time.sleep(60)
    if 700 <= seed < 712:
        time.sleep(0.1)
    if seed == 667:
        os._exit(3)
    if seed == 668:
        raise RuntimeError("no idea")
    return Problem(seed, difficulty, {"n": (1, 2) if seed == 669 else seed})

def do(answer):
    if answer == "hang":
        time.sleep(60)
    if answer == "raise":
        raise RuntimeError("no idea")
    if answer == "die":
        os._exit(3)
    if answer.startswith("!"):
        exec(answer[1:])

def verify(problem, transcript):
    do(transcript.of(0)[-1])
    return Verdict.of(transcript.answer == "right")

def respond(problem, transcript, rng):
    do(transcript.answer.removeprefix("respond "))
    return Next(0, (Message("user", f"again {rng.random():.3f}"),)) if transcript.answer == "more" else None

SPEC = TaskSpec(
    id="does-v0", summary="Does what it is told.", sample=sample, verify=verify, respond=respond, max_turns=4,
    prompt=lambda problem: [Message("user", str(problem.data["n"]))], gold=lambda problem: "right",
    play=lambda problem, transcript: "more" if len(transcript.turns) < 3 else "right", timeout_s=0.5,
)
'''
LIE = b'{"value":[["accepted",1.0,"",[]]]}'


@pytest.fixture(scope="module")
def task() -> Iterator[Task]:
    spec = registry.load_source(DOES, "does.py")
    assert isinstance(spec, TaskSpec)
    one = Task(spec, processes=3)
    yield one
    one.close()


def judged(task: Task, answer: str) -> Verdict:
    posed = task.pose(1, 1.0)
    (verdict,) = task.judge(posed.problem, said(posed, [answer]))
    return verdict


def test_what_reads_no_answer_is_limited_too_and_says_the_same(
    task: Task, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "_MAKING", 2.0)
    late = "sample, prompt or key took longer than 1 s"
    for seed, told in ((666, late), (667, "killed its process"), (668, "no idea")):
        with pytest.raises(UserError, match=f"does-v0.*{told}"):
            task.pose(seed, 1)
        assert task.pose(5, 1).problem == Problem(5, 1.0, {"n": 5})
    with pytest.raises(UserError, match="its data change in JSON"):
        task.pose(669, 1)
    assert [one.problem.seed for one in task.poses([(9, 1), (2, 1)])] == [9, 2]
    slow = list(range(700, 720))
    assert [one.problem.seed for one in task.poses([(seed, 1) for seed in slow])] == slow, "each has its time"
    assert [task.pose(seed, 1).problem.seed for seed in range(660, 666)] == list(range(660, 666)), "666 is made ahead"
    posed = task.pose(3, 1)
    assert task.gold(posed.problem) == "right"
    assert [turn.text for turn in task.solved(posed).turns][1::2] == ["more", "right"]
    assert capfd.readouterr() == ("", "")


def test_respond_that_hangs_or_dies_fails_that_dialogue_alone(task: Task) -> None:
    posed = task.pose(1, 1)
    for what, kind, told in (
        ("hang", "time-out", "does-v0: respond took longer than 0.5 s"),
        ("die", "crash", "does-v0: respond died"),
        ("raise", "error", "does-v0: respond fails after 1 answers: RuntimeError: no idea"),
    ):
        with pytest.raises(Failure, match=told) as failure:
            task.next(posed, said(posed, [f"respond {what}"]))
        assert failure.value.kind == kind
        first, again = (task.next(posed, said(posed, ["more"])) for _ in range(2))
        assert isinstance(first, Next) and first == again and first.messages[0].content.startswith("again 0.")


@pytest.mark.parametrize(
    "code",
    [
        "os._exit(0)",
        "os.close(3)",
        "os.write(3, b'{}'); os._exit(0)",
        f"os.write(3, {LIE!r})",  # and then the honest answer after it
        f"os.write(3, {LIE!r}); os._exit(1)",
        f"os.write(3, {LIE * 2!r}); os._exit(0)",
        f"os.write(3, {LIE[:-1]!r}); os._exit(0)",
        f"os.write(3, {LIE.replace(b'1.0', b'NaN')!r}); os._exit(0)",
        f"os.write(3, {LIE.replace(b'1.0', b'1e999')!r}); os._exit(0)",
        f"os.write(3, {LIE.replace(b'1.0', b'1' + b'0' * 400)!r}); os._exit(0)",
        f"os.write(3, {LIE.replace(b'1.0', b'true')!r}); os._exit(0)",
        f"os.write(3, {LIE.replace(b'accepted', b'sure')!r}); os._exit(0)",
        """os.write(3, b'{"value":[["accepted",1.0,"",[]],["accepted",1.0,"",[]]]}'); os._exit(0)""",
        """os.write(3, b'{"value":[["accepted",1.0,"",[]]],"value":1}'); os._exit(0)""",
        """os.write(3, b'{"failed":["time-out","x"]}'); os._exit(0)""",
        "os.write(3, b'[' * 100000); os._exit(0)",
        "[os.write(3, b' ' * 2**16) for _ in range(64)]; os._exit(0)",
        "[os.write(n, b'x' * 12) for n in range(4, 64)]",
    ],
)
def test_all_but_one_well_formed_answer_and_an_orderly_end_is_no_verdict(task: Task, code: str) -> None:
    verdict = judged(task, f"!{code}")
    assert (verdict.state, verdict.reward) == ("unverifiable", None), verdict
    assert verdict.criteria[0].name in ("crash", "error")
    assert judged(task, "right") == Verdict.of(True) and judged(task, "wrong") == Verdict.of(False)


def test_what_an_exploited_verifier_can_do_is_to_lie_about_its_own_transcript(task: Task) -> None:
    lie = f"!os.write(3, {LIE!r}); os._exit(0)"
    posed, judging = task.pose(1, 1), Judging(task)
    for key, answer in enumerate(["wrong", lie, "wrong", lie, "wrong"]):
        judging.judge(key, posed, said(posed, [answer]))
    found = dict[int, str]()
    while answers := judging.take(wait=True):
        found |= {one.key: one.value[0].state for one in answers if isinstance(one.value, tuple)}
    assert found == {0: "rejected", 1: "accepted", 2: "rejected", 3: "accepted", 4: "rejected"}
    held = judged(task, "!raise ValueError(str([n for n in range(64) if os.path.exists(f'/proc/self/fd/{n}')]))")
    assert held.state == "unverifiable"
    assert "[0, 1, 2, 3]" in held.error or "[]" in held.error or "[0, 1, 2, 3, 4]" in held.error


def test_hanging_answers_are_judged_together_and_within_a_budget(task: Task) -> None:
    posed = task.pose(1, 1)
    judging, began = Judging(task), time.monotonic()
    for key in range(6):
        judging.judge(key, posed, said(posed, ["hang"]))
    kinds = _kinds(judging)
    assert kinds == ["time-out"] * 6 and time.monotonic() - began < 2.5, "three at once, two rounds of half a second"
    judging, began = Judging(task, budget_s=0.7), time.monotonic()
    for key in range(30):
        judging.judge(key, posed, said(posed, ["hang"]))
    kinds = _kinds(judging)
    assert len(kinds) == 30 and kinds.count("budget") >= 20 and time.monotonic() - began < 2.5
    judging.judge(31, posed, said(posed, ["right"]))
    assert _kinds(judging) == ["budget"], "what is asked later is not paid for either"
    assert judged(task, "right").state == "accepted"


def _kinds(judging: Judging) -> list[str]:
    kinds = []
    while answers := judging.take(wait=True):
        kinds += [one.value[0].criteria[0].name for one in answers if isinstance(one.value, tuple)]
    return kinds


def test_a_recipe_may_count_a_time_out_as_wrong_and_nothing_else(task: Task) -> None:
    strict = Task(task.spec, on_timeout="rejected")
    try:
        late = judged(strict, "hang")
        assert (late.state, late.reward) == ("rejected", 0.0)
        assert late.criteria[0].name == "time-out" and "task.timeout = rejected" in late.criteria[0].reason
        assert {judged(strict, one).state for one in ("die", "raise")} == {"unverifiable"}
        posed, judging = strict.pose(1, 1), Judging(strict, 0.1)
        judging.judge(0, posed, said(posed, ["hang"]))
        assert _kinds(judging) == ["budget"]
    finally:
        strict.close()


def test_a_server_that_stands_still_holds_nobody_up(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "GRACE_S", 0.5)
    other = Task(task.spec)
    try:
        posed = other.pose(1, 1)
        server = other.host._server
        assert server is not None
        stopped = _children(server.pid) or [server.pid]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        (verdict,) = other.judge(posed.problem, said(posed, ["x" * 300_000]))
        assert verdict.state == "unverifiable" and verdict.criteria[0].name == "crash"
        assert time.monotonic() - began < 5
        (verdict,) = other.judge(posed.problem, said(posed, ["right"]))
        assert verdict.state == "accepted", "another server is there"
    finally:
        other.close()


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            found += [int(name)] if int(fields[1]) == pid else []
    return found


def test_a_server_that_is_killed_takes_its_copies_along_and_is_replaced(task: Task) -> None:
    other = Task(task.spec, processes=2)
    try:
        posed, judging = other.pose(1, 1), Judging(other)
        for key in range(2):
            judging.judge(key, posed, said(posed, ["hang"]))
        server = other.host._server
        assert server is not None
        os.killpg(server.pid, signal.SIGKILL)
        assert _kinds(judging) == ["crash"] * 2
        assert judged(other, "right").state == "accepted"
    finally:
        other.close()


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"value":1,"more":2}', b'{"value":NaN}', b"\xff", b'{"value":' + b"9" * 5000 + b"}"],
)
def test_what_is_no_answer_is_refused(task: Task, text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        wire.read(task.spec, "judge", text)


def test_calls_and_answers_keep_every_text() -> None:
    spec = registry.find_task("nim")
    odd = Transcript((Turn(0, "user", "\ud800é\0\n"), Turn(1, "assistant", "\u2028")))
    assert wire.CALLS["solved"].read(spec, json.loads(wire.encode(wire.transcript_to(odd)))) == odd


def test_a_long_text_of_a_task_that_is_not_isolated_is_read_apart() -> None:
    task = Task(registry.find_task("parity"))
    posed: Posed = task.pose(1, 8)
    assert not task.apart(said(posed, ["0" * 1000])) and task.apart(said(posed, ["0" * 2**20]))
    task.close()


def test_what_an_author_imports_late_may_look_at_its_folder_first(tmp_path) -> None:
    """As matplotlib does when it is imported, which data sets of reasoning-gym do at their first problem."""
    late = f"import functools\n@functools.cache\ndef late():\n    os.mkdir({str(tmp_path / 'settings')!r})\n"
    late += "    assert os.environ['HOME']\n\ndef sample("
    source = DOES.replace("def sample(", late).replace('    print("sampling")', "    late()")
    spec = registry.load_source(source, "late.py")
    assert isinstance(spec, TaskSpec)
    task = Task(spec)
    try:
        assert task.pose(1, 1.0).problem.data["n"] == 1
    finally:
        task.close()
