"""The process that `describe` starts: it confines copies of itself and prints which attacks from within are refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from selfplay.sandbox import namespaces
from selfplay.sandbox.attacks import ATTACKS, Victim
from selfplay.sandbox.confinement import confine
from selfplay.sandbox.libc import close_from
from selfplay.sandbox.record import Unconfined

#: Seconds for one attack.
_ATTACK_S = 5
#: How a refusal looks: EAGAIN is that of a thread, ENOSYS that of a call which the C library can do without.
_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAGAIN}


def main(own_namespaces: bool) -> None:
    """In the process of the probe: prints what it found, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kept").write_text("kept")
        pid, alive = _victim()
        if own_namespaces:
            namespaces.enter_namespaces()
        seen = 0 if namespaces.current().pid else pid
        victim = Victim(seen, os.getpid(), folder, -1)
        said = json.loads(attack(None, victim)[0])
        refused: list[str] = []
        succeeded: list[str] = []
        if said["confinement"] is not None:
            for name in ATTACKS:
                (succeeded if attack(name, victim)[1] else refused).append(name)
        try:
            os.write(alive, b"x")
        except BrokenPipeError:
            succeeded.append("end a process by any of these")
        if [one.name for one in Path(folder).iterdir()] != ["kept"] or (Path(folder) / "kept").read_text() != "kept":
            succeeded.append("change a file by any of these")
    print(json.dumps({**said, "refused": refused, "succeeded": succeeded}), flush=True)


def _victim() -> tuple[int, int]:
    """Starts a process of the same user, with an environment to read: its pid, and a pipe that it reads while it lives.

    It ends when every process of the probe has.
    """
    reads, alive = os.pipe()
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys\nwhile sys.stdin.buffer.raw.read(1): pass"],
        stdin=reads,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"A_SECRET": "of another process"},
    )
    os.close(reads)
    return started.pid, alive


def attack(name: str | None, victim: Victim) -> tuple[str, bool]:
    """Runs an attack in a confined copy: what the copy said, and whether the attack went through.

    name: None for no attack; what is said is the record of the confinement then, as JSON.
    """
    said, says = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            os.dup2(says, 3)
            close_from(4)
            os.write(3, _in_copy(name, victim).encode())
        finally:
            os._exit(0)
    os.close(says)
    with os.fdopen(said, "rb") as reads:
        text = reads.read().decode()
    os.waitpid(copy, 0)
    return text, text.startswith("went through")


def _in_copy(name: str | None, victim: Victim) -> str:
    try:
        laid = confine(cpu_s=_ATTACK_S)
    except Unconfined as error:
        return json.dumps({"confinement": None, "reason": str(error)})
    if name is None:
        return json.dumps({"confinement": asdict(laid), "reason": ""})
    signal.alarm(_ATTACK_S)
    try:
        ATTACKS[name](Victim(victim.pid, victim.server, victim.folder, 3))
    except OSError as error:
        return f"refused: {error}" if error.errno in _REFUSALS else f"went through, and then: {error}"
    except RuntimeError as error:  # a thread
        return f"refused: {error}"
    return "went through"
