"""Verifiers in a process of their own, that may be killed: one that hangs, dies or is taken over harms nobody.

The two processes exchange lines of JSON, nothing that could carry code. The child may write no byte to a file and use
no more than its share of memory and time (and start no process, where it does not run as root); after each death it is
started again. What it says is checked like any other verdict. It is no sandbox for programs that a model wrote: it can
read files, and what takes it over can say what it likes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from selfplay.contract import Criterion, Problem, TaskSpec, Transcript, Turn, Verdict

#: Address space of the child, bytes; and how long it may take to begin, seconds.
MEMORY_BYTES = 4 * 2**30
START_S = 60.0
_MOST_BYTES = 2**20
_CODE = "from selfplay.isolation import serve; serve()"


class Isolated:
    """The verifier of one task in a process of its own. Not for several threads at once."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._child: subprocess.Popen[bytes] | None = None

    def judge(self, problem: Problem, transcript: Transcript) -> tuple[Verdict, ...]:
        """The task's verdicts, one a seat; "unverifiable" if the child dies, hangs or says what is no verdict."""
        from selfplay.task import judged, unverifiable

        question = {"problem": _plain(problem), "turns": [asdict(turn) for turn in transcript.turns]}
        try:
            self._start()
            answer = self._ask(question, self._spec.timeout_s)
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
        self._ask({"reference": portable.reference, "text": portable.text}, START_S)

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
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what a verifier prints or reads is not part of the exchange
        os.dup2(null, standard)
    from selfplay import registry
    from selfplay.task import judged

    first = json.loads(source.readline())
    spec = registry.unpack_any(registry.Portable(first["reference"], first["text"]))
    assert isinstance(spec, TaskSpec)
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))
    sink.write(b"{}\n")
    sink.flush()
    for line in source:
        asked = json.loads(line)
        problem = Problem(asked["problem"]["seed"], asked["problem"]["difficulty"], asked["problem"]["data"])
        verdicts = judged(spec, problem, Transcript(tuple(Turn(**turn) for turn in asked["turns"])))
        sink.write(json.dumps({"verdicts": [asdict(verdict) for verdict in verdicts]}).encode() + b"\n")
        sink.flush()
