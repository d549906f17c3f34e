"""Checks an environment in processes of its own, and watches them: what hangs or dies is a finding, never silence.

One process makes the checks. A second one, in which much is different (`CONDITIONS`), is told what
the first one has seen and looks whether it sees the same.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from selfplay import surroundings
from selfplay.environments.checks import frames
from selfplay.environments.checks.child import ASK
from selfplay.environments.checks.hostile import CHECK
from selfplay.environments.checks.progress import SIZE, read
from selfplay.environments.checks.report import Finding, Report, TaskReport
from selfplay.errors import UserError

#: What one step of an author's code may take, seconds of `_OwnTime`; and all checks together, in such steps.
STEP_S, MOST_STEPS = 10.0, 30
#: How long a process may take to write where it stands, seconds.
_STACK_S = 1.0
#: A call that the factory itself ends after a task's `timeout_s` may take so much longer, seconds.
_SPARE_S = 5.0
_CODE = "from selfplay.environments.checks.child import main; main({}, {}, {})"
_SAME = "the same in another process"
_PRINTS = "prints nothing"


#: What can be different in the other process -> how a sentence names it, and what an author should do.
CONDITIONS = {
    "order": (
        "after other calls in another order",
        "keep nothing between calls: everything must follow from the seed, or lie in the state",
    ),
    "clock": ("at another time", "read no clock"),
    "hash": (
        "with another order of sets (PYTHONHASHSEED)",
        "sort a set before its order counts, and seed no generator with hash()",
    ),
    "place": (
        "in another folder, with another HOME, locale and time zone",
        "put what is needed into the file itself",
    ),
}
#: Where none of them is needed for a difference.
ALWAYS = ("in another process", "seed every random generator, and use no process id, memory address or machine name")


class _Stopped(Exception):
    """A process hung or died. check: which it was at; reason: what happened, in one sentence; where: see `Finding`."""

    def __init__(self, check: str, reason: str, where: str) -> None:
        super().__init__(reason)
        self.check, self.where = check, where


class _OwnTime:
    """Seconds that a process has had: those in which it ran, and those in which it waited for something else than a
    processor. So a busy machine makes no code look slow. Where the system does not tell, it is the time that passes.
    """

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/stat")
        self._had, self._last, self._ran = 0.0, time.monotonic(), self._running()[1]

    def read(self) -> float:
        """Since the clock was made; to be read several times a second."""
        now, (ready, ran) = time.monotonic(), self._running()
        self._had += ran - self._ran if ready else now - self._last
        self._last, self._ran = now, ran
        return self._had

    def _running(self) -> tuple[bool, float]:
        """Whether it runs or waits for a processor, and how long it has run."""
        try:
            fields = self._file.read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
        except OSError:
            return False, 0.0
        return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Child:
    """A process that checks. hash_seed: orders its sets. elsewhere: in another folder, HOME, locale and time zone."""

    def __init__(self, step_s: float, hash_seed: int, elsewhere: bool = False) -> None:
        self._step_s = step_s
        self.apart_s = 0.0  # what a step may take where hostile text is read by processes with a limit of their own
        self._folder = tempfile.TemporaryDirectory(prefix="selfplay-check-")
        self._memory, self._stacks = (tempfile.TemporaryFile() for _ in range(2))
        self._memory.truncate(SIZE)
        self._view = mmap.mmap(self._memory.fileno(), SIZE)
        self._link, theirs = socket.socketpair()
        self._heard = b""
        descriptors = (theirs.fileno(), self._memory.fileno(), self._stacks.fileno())
        nothing = subprocess.DEVNULL
        with theirs:
            self._process = subprocess.Popen(
                surroundings.command(_CODE.format(*descriptors)),
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                cwd=self._folder.name if elsewhere else None,
                env=_environment(hash_seed, self._folder.name if elsewhere else None),
                pass_fds=descriptors,
                start_new_session=True,
            )

    def __enter__(self) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._link.close()
        self._view.close()
        self._memory.close()
        self._stacks.close()
        self._folder.cleanup()

    def order(self, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has died, which `messages` tells
            self._link.sendall(json.dumps(order).encode() + b"\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says, until it is done. Raises `_Stopped` where it hangs or dies."""
        clock = _OwnTime(self._process.pid)
        moved, steps = 0.0, -1
        while True:
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                message = json.loads(line)
                yield message
                if "done" in message:
                    return
            if select.select([self._link], [], [], 0.1)[0]:
                part = self._link.recv(2**20)
                if not part:
                    raise self._died()
                self._heard += part
            now = clock.read()
            if steps != (steps := read(self._view)[0]):
                moved = now
            apart_s = self.apart_s if read(self._view)[1] == CHECK else 0.0
            if now - moved > max(self._step_s, apart_s):
                raise self._hung()
            if now > self._step_s * MOST_STEPS:
                name, place = read(self._view)[1:]
                reason = f"the checks take longer than {self._step_s * MOST_STEPS:g} s; make the code faster"
                raise _Stopped(name, reason, place)

    def _hung(self) -> _Stopped:
        _, name, place = read(self._view)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, ASK)
        until = time.monotonic() + _STACK_S
        while not (stack := self._stack()) and time.monotonic() < until:
            time.sleep(0.02)
        what = f"took longer than {self._step_s:g} s"
        advice = "it must return soon whatever it is given (selfplay check-env --limit gives it more time)"
        return _Stopped(name, f"{_called(stack, place)} {what}{_stood(stack)}; {advice}", place)

    def _died(self) -> _Stopped:
        _, name, place = read(self._view)
        status = self._process.wait()
        stack = self._stack()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        advice = "raise an exception where something is wrong, and end no process"
        return _Stopped(name, f"{_called(stack, place)} killed its process ({how}){_stood(stack)}; {advice}", place)

    def _stack(self) -> list[frames.Frame]:
        self._stacks.seek(0)
        return frames.dumped(self._stacks.read().decode(errors="replace"))


def _called(stack: list[frames.Frame], place: str) -> str:
    """The function of the author's that this project had called: the place ends in it, or the stack does."""
    if (name := place.rpartition(", ")[2]).isidentifier():
        return name
    name = stack[-1].name.lstrip("_") if stack else ""
    if name.startswith("<module"):
        return "importing the file"
    return name if name.isidentifier() else "its code"


def _stood(stack: list[frames.Frame]) -> str:
    return f"; it stood in {stack[0]}" if stack else ""


def _environment(hash_seed: int, home: str | None) -> dict[str, str]:
    paths = [str(Path(__file__).parents[3]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    found = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(one) for one in paths if one)
    if home is not None:
        user = os.environ.get("PYTHONUSERBASE") or os.path.expanduser("~/.local")
        found |= {"HOME": home, "PYTHONUSERBASE": user, "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C"}
        found |= {"USER": "somebody", "LOGNAME": "somebody", "PWD": home}
    return found


def examine(reference: str, step_s: float = STEP_S) -> Report | TaskReport:
    """Checks what the user named, in other processes; see `game_check` and `task_check`.

    step_s: how long one step of the author's code may take. Raises `UserError` for a name of nothing that can be
    loaded; all that is wrong with what it names is in the report.
    """
    began = time.monotonic()
    loaded: dict[str, Any] = {}
    findings: list[Finding] = []
    report: dict[str, Any] | None = None
    prints: str | None = None
    with _Child(step_s, 1) as child, _Child(step_s, 2, elsewhere=True) as other:
        child.order({"check": reference})
        try:
            for message in child.messages():
                if "error" in message:
                    raise UserError(message["error"])
                if "warning" in message:
                    warnings.warn(message["warning"], stacklevel=2)
                if "task" in message:
                    loaded = message
                    child.apart_s = message["timeout_s"] + _SPARE_S
                if "record" in message:
                    loaded["record"] = message["record"]
                    other.order(_order(loaded, set(CONDITIONS)))
                if "finding" in message:
                    findings.append(Finding(*message["finding"]))
                report = message.get("report", report)
                prints = message.get("done", prints)
            if "record" in loaded:
                findings.append(_compared(other, loaded, step_s))
        except _Stopped as stopped:
            findings.append(Finding(stopped.check, str(stopped), None, stopped.where))
    findings.append(Finding(_PRINTS, None, prints))
    kind = TaskReport if loaded.get("task") else Report
    empty = kind(loaded.get("id", reference), loaded.get("about", ""), ())
    whole = empty if report is None else kind.of(report)
    return replace(whole, findings=tuple(findings), seconds=round(time.monotonic() - began, 3))


def _order(loaded: dict[str, Any], different: set[str]) -> dict[str, Any]:
    return {
        "portable": loaded["portable"],
        "record": loaded["record"],
        "clock": "clock" in different,
        "reorder": "order" in different,
    }


def _compared(other: _Child, loaded: dict[str, Any], step_s: float) -> Finding:
    """What the second process finds, and which of its conditions makes the difference."""
    difference = _difference(other)
    if difference is None:
        return Finding(_SAME, None)
    for different in ((), *((one,) for one in CONDITIONS)):
        with _Child(step_s, 2 if "hash" in different else 1, "place" in different) as again:
            again.order(_order(loaded, set(different)))
            alone = _difference(again)
        if alone is not None:
            how, advice = CONDITIONS[different[0]] if different else ALWAYS
            return Finding(_SAME, f"{alone}, {how}; {advice}")
    how = "in another process, in which order, clock, hash seed and folder are others"
    return Finding(_SAME, f"{difference}, {how}; everything must follow from seeds and moves")


def _difference(other: _Child) -> str | None:
    found: str | None = None
    try:
        for message in other.messages():
            found = message.get("error") or message.get("differs") or found
    except _Stopped as stopped:
        return f"{stopped.where}: {stopped}"
    return found
