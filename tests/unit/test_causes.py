"""What Ray tells is said in plain words; what this machine allows is counted; Ray that cannot start says why."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError

from selfplay import machine
from selfplay.errors import Damaged, UserError
from selfplay.store import OutOfOrder, Taken, acquire
from trainers.launch import _in_words
from trainers.run.failure_causes import cause_of, in_words, passes
from trainers.run.ray_session import LastWords, _died, _reason


def failed(cause: Exception, trace: str = "Traceback (most recent call last):\nOSError: no") -> Exception:
    """A failed call, as `ray.get` raises it."""
    return RayTaskError("Archivist.commit", trace, cause, "ray::Archivist", 7, "10.0.0.1", "<x>").as_instanceof_cause()


@pytest.mark.parametrize(
    "cause", [OSError("no log"), UserError("give another"), Damaged("a/file", "it is empty"), KeyError("x")]
)
def test_a_failed_call_is_the_error_that_it_was(cause: Exception) -> None:
    error = failed(cause)
    assert "ray::Archivist" in str(error)
    assert cause_of(error) is cause and cause_of(cause) is cause
    assert in_words(error) in (str(cause), f"{type(cause).__name__}: {cause}")
    assert not passes(error) and not passes(cause)


@pytest.mark.parametrize("cause", [Taken("block 0 was committed"), OutOfOrder("block 3 must come next")])
def test_two_that_go_on_with_one_run_are_told_so(cause: Exception, tmp_path: Path) -> None:
    """The folder of a run was copied, and its corpus is shared: both drivers have the next epoch of the same run."""
    with acquire(str(tmp_path), "run") as lease:
        with pytest.raises(UserError, match=f"same run in the same corpus .{cause}.* a copy of a run's folder"):
            with _in_words(lease):
                raise failed(cause)


def test_a_constructor_that_says_why() -> None:
    text = "\x1b[36mray::Player.__init__()\x1b[39m\n  File x\nselfplay.errors.UserError: the folder is not seen"
    error = ActorDiedError()
    error.error_msg, error._actor_init_failed = text, True
    assert isinstance(cause_of(error), UserError) and in_words(error) == "the folder is not seen"


def test_deaths_of_processes_pass() -> None:
    assert passes(ActorDiedError()) and passes(WorkerCrashedError())
    assert "\x1b" not in in_words(ActorDiedError()) and "\n" not in in_words(ActorDiedError())


def test_a_damaged_file_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Damaged("a/file", "it is empty")))
    assert (error.uri, error.reason, str(error)) == ("a/file", "it is empty", "a/file is damaged: it is empty")


def test_why_ray_cannot_be_used() -> None:
    other = "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis process on x was"
    said = _reason(RuntimeError(f"{other} started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"))
    assert all(part in said for part in ("Ray: 2.9.0", "Python: 3.10.1", "Ray: 2.60.0", "same versions"))
    assert "\n" not in said
    home = PermissionError(13, "Permission denied", "/root/.ray")
    assert "set HOME to one that can" in _reason(home)
    assert "busy" in _reason(Exception("The current node timed out during startup. This could happen"))


def test_cores_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "a" / "b").mkdir(parents=True)
    mine.write_text("0::/a/b\n")
    assert machine._quota(root, mine) is None
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert machine._quota(root, mine) == 1.5
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "_quota", lambda *_: 1.5)
    assert machine.cores() == 2
    monkeypatch.setattr(machine, "_quota", lambda *_: None)
    assert machine.cores() == 4


def test_the_last_word_is_said_also_where_the_guard_was_killed_with_ray() -> None:
    said: list[str] = []
    guard = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""], stdin=subprocess.PIPE)
    guard.wait()
    words = LastWords(2, "nothing is lost", said.append, guard)
    words.taken()
    _died(words, "the node manager (raylet)")
    assert said == [
        "Ray has died under the run: the node manager (raylet) has ended (killed, or out of memory?); nothing is lost"
    ]
