"""The process that judges: whatever an answer does in it, nothing runs, nothing passes, and no neighbour is harmed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.contract import Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import registry
from selfplay.environments.task import Task as Isolated

#: A verifier as it must not be: it evaluates what the answer says.
EVALUATES = """
import os, socket, sys, time
from selfplay.contract import *

def verify(problem, transcript):
    answer = transcript.answer
    if answer.startswith("!"):
        raise RuntimeError(repr(eval(answer[1:])))
    return Verdict.of(answer == "right")

SPEC = TaskSpec(
    id="evaluates-v0", summary="Evaluates.", sample=lambda seed, difficulty: Problem(seed, difficulty, {}),
    verify=verify, prompt=lambda problem: [Message("user", "?")], gold=lambda problem: "right", timeout_s=3.0,
)
"""
FORGED = b'{"verdicts": [{"state": "accepted", "reward": 1.0, "criteria": [], "error": ""}]}\\n'

filtered = pytest.mark.skipif(sys.platform != "linux", reason="processes are confined on Linux only")


@pytest.fixture(scope="module")
def evaluating() -> Iterator[Isolated]:
    spec = registry.load_source(EVALUATES, "evaluates.py")
    assert isinstance(spec, TaskSpec)
    isolated = Isolated(spec)
    yield isolated
    isolated.close()


def ask(isolated: Isolated, answer: str) -> Verdict:
    (verdict,) = isolated.judge(Problem(0, 1.0, {}), Transcript((Turn(0, "assistant", answer),)))
    return verdict


def unharmed(isolated: Isolated) -> None:
    assert ask(isolated, "right") == Verdict.of(True) and ask(isolated, "wrong") == Verdict.of(False)


@filtered
@pytest.mark.parametrize(
    "code",
    [
        "open({canary!r}, 'w')",
        "open({canary!r}, 'a')",
        "os.open({canary!r}, os.O_CREAT)",
        "os.open({folder!r}, os.O_TMPFILE | os.O_RDWR)",
        "open({file!r}, 'r+').truncate()",
        "os.truncate({file!r}, 0)",
        "os.unlink({file!r})",
        "os.rename({file!r}, {canary!r})",
        "os.link({file!r}, {canary!r})",
        "os.symlink({file!r}, {canary!r})",
        "os.mkdir({canary!r})",
        "os.mkfifo({canary!r})",
        "os.chmod({file!r}, 0)",
        "os.utime({file!r})",
        "os.setxattr({file!r}, 'user.x', b'x')",
        "os.popen('touch {canary}').read()",
        "os.execv('/bin/touch', ['touch', {canary!r}])",
        "os.posix_spawn('/bin/touch', ['touch', {canary!r}], {{}})",
        "__import__('subprocess').run(['touch', {canary!r}])",
        "__import__('multiprocessing').Process(target=print).start()",
        "os.fork()",
        "os.kill(os.getppid(), 9)",
        "os.kill(os.getpid(), 9)",
        "os.killpg(0, 9)",
        "os.pidfd_open(os.getppid())",
        "os.setpriority(0, 0, -5)",
        "socket.socket()",
        "socket.socketpair()",
        "socket.create_connection(('127.0.0.1', 9))",
        "open('/proc/%d/mem' % os.getppid(), 'r+b')",
    ],
)
def test_what_runs_in_it_may_do_nothing(evaluating: Isolated, code: str, tmp_path: Path) -> None:
    file, canary = tmp_path / "file", tmp_path / "canary"
    file.write_text("kept")
    mode, changed = file.stat().st_mode, file.stat().st_mtime_ns
    verdict = ask(evaluating, "!" + code.format(canary=str(canary), file=str(file), folder=str(tmp_path)))
    assert verdict.state == "unverifiable"
    assert "not permitted" in verdict.error or "PermissionError" in verdict.error, verdict.error
    assert [one.name for one in tmp_path.iterdir()] == ["file"] and file.read_text() == "kept"
    assert (file.stat().st_mode, file.stat().st_mtime_ns) == (mode, changed)
    unharmed(evaluating)


def test_a_shell_does_nothing_either(evaluating: Isolated, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    assert ask(evaluating, f"!os.system('touch {canary}')").state == "unverifiable"
    assert not canary.exists()


def test_it_knows_neither_the_environment_nor_the_folder(evaluating: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ask(evaluating, "!({key for key in os.environ if not key.endswith('_THREADS')}, os.getcwd())")
    assert said.error == "RuntimeError: (set(), '/')"
    monkeypatch.setenv("A_SECRET", "secret")
    other = Isolated(registry.find_task("evaluates"))
    try:
        assert "A_SECRET" not in ask(other, "!open('/proc/self/environ').read()").error
    finally:
        other.close()


@pytest.mark.parametrize(
    "code",
    [
        f"[os.write(file, {FORGED!r}) for file in range(3, 64) if os.path.exists('/proc/self/fd/%d' % file)]",
        f"(os.write(3, {FORGED!r}), os._exit(0))",
        f"(os.write(1, {FORGED!r}), os._exit(0))",
        "(os.write(3, b'0' * 32 + b'{}'), os._exit(0))",
        "(os.write(3, b'x' * 2**22), os._exit(0))",
        "os.close(3)",
        "sys.exit(0)",
        "os._exit(0)",
        "os.abort()",
    ],
)
def test_a_forged_verdict_is_none(evaluating: Isolated, code: str) -> None:
    verdict = ask(evaluating, "!" + code.replace("\\\\n", "\\n"))
    assert (verdict.state, verdict.reward) == ("unverifiable", None), verdict
    unharmed(evaluating)


@pytest.mark.parametrize(
    ("code", "error"),
    [("9**9**9**9", "longer than 3 s"), ("time.sleep(99)", "longer than 3 s"), ("'x' * 2**36", "MemoryError")],
)
def test_time_and_memory_are_limited(evaluating: Isolated, code: str, error: str) -> None:
    assert error in ask(evaluating, "!" + code).error
    unharmed(evaluating)


def test_nothing_that_an_answer_changes_outlives_it(evaluating: Isolated) -> None:
    changed = ask(evaluating, "!sys.modules['selfplay.environments.task'].__dict__.update(judged=None)")
    assert changed.state == "unverifiable"
    assert ask(evaluating, "!sys.modules['builtins'].__dict__.update(open=None)").state == "unverifiable"
    unharmed(evaluating)
