"""The process in which an author's code is checked. It reports as it goes, and may be killed at any time.

Its owner (`selfplay.environments.checks.watch`) sends one order as a line of JSON: to check an environment, or to
compare it with what another process has recorded. It answers in lines of JSON: what it found, one by one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from typing import Any

from selfplay.environments.checks.prints import heard
from selfplay.environments.checks.progress import progress, share
from selfplay.errors import UserError
from selfplay.sandbox.libc import LIBC

#: Memory that a check may take beyond what is taken once the environment is loaded, bytes.
MEMORY_BYTES = 4 * 2**30
#: Makes this process write to the file of its stack where it stands.
ASK = signal.SIGUSR1
#: Its owner's death ends it, even in a loop that never returns.
_PR_SET_PDEATHSIG = 1

Say = Callable[[dict[str, Any]], None]


def main(link: int, memory: int, stacks: int) -> None:
    """link: a socket to the owner. memory: a file for `progress`. stacks: a file for stacks."""
    if sys.platform == "linux":
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    share(memory)
    faulthandler.enable(stacks, all_threads=False)
    faulthandler.register(ASK, stacks, all_threads=False)
    owner = socket.socket(fileno=link)
    order = json.loads(owner.makefile("rb").readline())

    def say(message: dict[str, Any]) -> None:
        owner.sendall(json.dumps(message).encode() + b"\n")

    progress().check("loads and plays" if "check" in order else "the same in another process")
    with heard() as sink:
        try:
            _check(order["check"], say) if "check" in order else _compare(order, say)
        except UserError as error:
            say({"error": str(error)})
        say({"done": sink.remark()})
    # Threads and exit handlers of the author's must not keep it.
    os._exit(0)


def _check(reference: str, say: Say) -> None:
    from selfplay.contract import TaskSpec
    from selfplay.environments import registry
    from selfplay.environments.checks import twin
    from selfplay.environments.checks.game_check import check
    from selfplay.environments.checks.task_check import check_task

    with warnings.catch_warnings(record=True) as warned:
        spec = registry.find_any(reference)
    for one in warned:
        say({"warning": str(one.message)})
    is_task = isinstance(spec, TaskSpec)
    portable = registry.pack(spec)
    about = spec.summary if isinstance(spec, TaskSpec) else spec.game
    own = spec.timeout_s if isinstance(spec, TaskSpec) and spec.isolated else 0.0
    said = {"task": is_task, "id": spec.id, "about": about, "timeout_s": own}
    say({**said, "portable": [portable.reference, portable.text]})
    _limit_memory()
    progress().check("problems are made again" if is_task else "loads and plays")
    with contextlib.suppress(Exception):  # whatever it is, the checks find it
        say({"record": twin.record(spec)})

    def found(finding: Any) -> None:
        say({"finding": [finding.name, finding.problem, finding.note, finding.where]})

    report = check_task(spec, found) if isinstance(spec, TaskSpec) else check(spec, found)
    say({"report": report.as_dict()})


def _compare(order: dict[str, Any], say: Say) -> None:
    from selfplay.environments import registry
    from selfplay.environments.checks import clock, twin
    from selfplay.environments.checks.game_check import what_was_raised

    if order["clock"]:
        clock.shift()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = registry.unpack_any(registry.Portable(*order["portable"]))
    _limit_memory()
    try:
        say({"differs": twin.differs(spec, order["record"], order["reorder"])})
    except UserError as error:
        say({"differs": str(error)})
    except Exception as error:
        say({"differs": f"{progress().place}: {what_was_raised(error)}"})


def _limit_memory() -> None:
    """Lets what takes memory without end meet an error instead of taking the machine's."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = taken + MEMORY_BYTES
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
