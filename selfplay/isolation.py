"""Verifiers in processes of their own, that may be killed: an answer that hangs or kills one harms no other.

A process beside this one loads the task once. For each transcript it starts a copy of itself, which is confined
(`selfplay.sandbox`), judges, says the verdict through a pipe of its own, and is gone; so whatever an answer did to it
is gone too. What it says must begin with a number that was drawn for this one verdict, so that a verdict written
blindly, to every file that is open, is none. The processes exchange lines of JSON, nothing that could carry code, and
what is said is checked like any other verdict. It is no sandbox for programs that a model wrote: code that runs in a
copy could find that number and lie about its own answer. So verifiers parse, and never evaluate.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from selfplay.contract import Criterion, Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.sandbox import Unconfined, confine, enter_namespaces, limit, prepare

#: How long the process may take to begin, and to answer after its copy had to, seconds.
START_S = 60.0
_GRACE_S = 10.0
_MOST_BYTES = 2**20
_CODE = "from selfplay.isolation import serve; serve()"


class Isolated:
    """The verifier of one task in a process of its own. Not for several threads at once.

    confined: without it the copies are limited only, and code in an answer is seen to run: for `check-env`.
    """

    def __init__(self, spec: TaskSpec, confined: bool = True) -> None:
        self._spec = spec
        self._confined = confined
        self._child: subprocess.Popen[bytes] | None = None

    def judge(self, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
        """The task's verdicts, one a seat; "unverifiable" if the child dies, hangs or says what is no verdict."""
        from selfplay.task import judged, unverifiable

        question = {"problem": _plain(problem), "turns": [asdict(turn) for turn in transcript.turns]}
        try:
            self._start()
            answer = self._ask(question, self._spec.timeout_s + _GRACE_S)
            if "failed" in answer:
                return unverifiable(self._spec, str(answer["failed"])[:500])
            verdicts = tuple(_verdict(one) for one in answer["verdicts"])
        except TimeoutError:
            self.close()
            return unverifiable(self._spec, f"the verifier took longer than {self._spec.timeout_s:g} s")
        except (OSError, EOFError):
            status = self._status()
            self.close()
            return unverifiable(self._spec, f"the verifier's process died ({status})")
        except (ValueError, TypeError, KeyError, AttributeError):
            self.close()
            return unverifiable(self._spec, "the verifier's process said what is no verdict")
        return judged(_fixed(self._spec, verdicts), problem, transcript)

    def _status(self) -> str:
        """How the child ended."""
        try:
            return f"exit status {self._child.wait(1.0)}" if self._child is not None else "it did not begin"
        except subprocess.TimeoutExpired:
            return "it closed its pipe"

    def close(self) -> None:
        """Kills the child."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, 9)
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._child = None

    def __del__(self) -> None:
        self.close()

    def _start(self) -> None:
        if self._child is not None and self._child.poll() is None:
            return
        self.close()
        from selfplay import registry

        portable = registry.pack(self._spec)
        pipe = subprocess.PIPE
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "HOME") if name in os.environ}
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._ask({"reference": portable.reference, "text": portable.text, "confined": self._confined}, START_S)

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._child is not None and self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(question).encode() + b"\n")
        self._child.stdin.flush()
        until, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                raise TimeoutError
            part = os.read(self._child.stdout.fileno(), 65536)
            if not part:
                raise EOFError
            line += part
            if len(line) > _MOST_BYTES:
                raise ValueError("too much")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("no object")
        return answer


def _plain(problem: Problem) -> dict[str, Any]:
    return {"seed": problem.seed, "difficulty": problem.difficulty, "data": dict(problem.data)}


def _verdict(plain: dict[str, Any]) -> Verdict:
    reward = plain["reward"]
    criteria = tuple(
        Criterion(str(one["name"]), float(one["score"]), str(one["reason"]), float(one["low"]), float(one["high"]))
        for one in plain["criteria"]
    )
    return Verdict(str(plain["state"]), None if reward is None else float(reward), criteria, str(plain["error"]))


def _fixed(spec: TaskSpec, verdicts: tuple[Verdict, ...]) -> TaskSpec:
    """The task with a verifier that says just this."""
    from dataclasses import replace

    return replace(spec, verify=lambda problem, transcript: verdicts)


def serve() -> None:
    """The child: loads a task and judges until its input ends."""
    enter_namespaces()
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what a verifier prints or reads is not part of the exchange
        os.dup2(null, standard)
    from selfplay import registry, task  # noqa: F401  what the copies need is loaded once

    first = json.loads(source.readline())
    spec = registry.unpack_any(registry.Portable(first["reference"], first["text"]))
    assert isinstance(spec, TaskSpec)
    prepare()
    gc.collect()
    gc.freeze()  # a copy shares what is loaded; collecting in it would copy that
    gc.disable()
    sink.write(b"{}\n")
    sink.flush()
    for line in source:
        sink.write(_judged_apart(spec, line, first["confined"]) + b"\n")
        sink.flush()


def _judged_apart(spec: TaskSpec, line: bytes, confined: bool) -> bytes:
    """What a copy of this process says of one transcript: {"verdicts": […]}, or {"failed": why there are none}."""
    nonce = secrets.token_hex(16).encode()
    reads, writes = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            _answer(spec, line, confined, nonce, writes)
        finally:
            os._exit(70)
    os.close(writes)
    try:
        said = _read(reads, spec.timeout_s)
    except TimeoutError:
        return _failed(f"the verifier took longer than {spec.timeout_s:g} s")
    finally:
        os.close(reads)
        with contextlib.suppress(OSError):
            os.kill(copy, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    if not said:
        return _failed(f"the verifier's process died (exit status {status})")
    try:
        if not said.startswith(nonce):
            raise ValueError("not its number")
        answer = json.loads(said.removeprefix(nonce))
        if "failed" in answer:
            return _failed(str(answer["failed"]))
        return json.dumps({"verdicts": answer["verdicts"]}).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return _failed("the verifier's process said what is no verdict")


def _answer(spec: TaskSpec, line: bytes, confined: bool, nonce: bytes, writes: int) -> None:
    """In the copy: judges, and says so."""
    from selfplay.task import judged

    os.dup2(writes, 3)  # 0, 1 and 2 are nothing
    os.closerange(4, os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else 4096)
    asked = json.loads(line)
    try:
        confine(spec.timeout_s + _GRACE_S) if confined else limit()
    except Unconfined as error:
        os.write(3, nonce + _failed(f"the verifier cannot be confined here: {error}"))
        os._exit(0)
    problem = Problem(asked["problem"]["seed"], asked["problem"]["difficulty"], asked["problem"]["data"])
    verdicts = judged(spec, problem, Transcript(tuple(Turn(**turn) for turn in asked["turns"])))
    said = nonce + json.dumps({"verdicts": [asdict(verdict) for verdict in verdicts]}).encode()
    while said:
        said = said[os.write(3, said) :]
    os._exit(0)


def _read(reads: int, seconds: float) -> bytes:
    """All that comes, up to a limit. Raises `TimeoutError`."""
    until, said = time.monotonic() + seconds, b""
    while len(said) <= _MOST_BYTES:
        left = until - time.monotonic()
        if left <= 0 or not select.select([reads], [], [], left)[0]:
            raise TimeoutError
        part = os.read(reads, 65536)
        if not part:
            break
        said += part
    return said


def _failed(why: str) -> bytes:
    return json.dumps({"failed": why}).encode()
