"""Tries a stranger's tokenizer and chat template in a process of its own before they are used here.

A chat template is a program, and a tokenizer's file can hold rules that its library never comes to an end with, or dies
of. `transformers` runs templates in a sandbox without limits of time or memory; here one dialogue is written with both
within limits. What later messages make of them is not known: this finds what never works.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping

from selfplay import surroundings
from selfplay.contract import Message
from selfplay.errors import UserError
from selfplay.nets.language.tokenizer import Broken, Tokenizer, may_render
from selfplay.sandbox.libc import LIBC
from selfplay.sandbox.limits import one_thread

#: What reading the files and writing a dialogue may take: processor time, seconds, and memory, bytes.
CPU_S, MEMORY_BYTES = 60.0, 4 * 2**30
#: Until the process is given up that waits and takes no processor time, seconds.
_WALL_S = 600.0
#: Digests of files that this process has tried.
_TRIED: set[str] = set()
#: What the other process ends with.
_MEMORY, _BROKEN = 10, 11
#: What is said in the dialogue, the first that the tokenizer can write: it may know few characters.
_SAID = ("What is 6*7?\n\nThink first.", "0", "a", "")
_PR_SET_PDEATHSIG = 1
_CODE = "from selfplay.nets.language.probe import main; main()"


def refuse_unusable(files: Mapping[str, str], source: str) -> None:
    """Raises `UserError` where reading a tokenizer's files and writing a dialogue with them does not come to an end.

    That the files are no tokenizer, or that its template takes no such dialogue, is for others to say.
    """
    digest = hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()
    if digest in _TRIED:
        return
    order = json.dumps({"files": dict(files), "cpu_s": CPU_S, "memory": MEMORY_BYTES})
    try:
        done = subprocess.run(
            surroundings.command(_CODE), input=order.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_WALL_S, start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"{source} or its chat template does not come to an end") from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UserError(f"{source} or its chat template takes more than {CPU_S:g} s of processor time for one dialogue")
    if done.returncode == _MEMORY:
        raise UserError(f"{source} or its chat template takes more than {MEMORY_BYTES / 2**30:g} GiB for one dialogue")
    if done.returncode == _BROKEN:
        raise UserError(f"{source} is no tokenizer: its library breaks down over it")
    if done.returncode:
        raise UserError(f"{source} or its chat template ends the process that tries it (status {done.returncode})")
    _TRIED.add(digest)


def main() -> None:
    """In the other process: reads the order; its exit status says what went wrong, 0 where nothing did."""
    if sys.platform == "linux":
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    one_thread()
    order = json.load(sys.stdin.buffer)
    if may_render(order["files"]):
        with contextlib.suppress(ImportError):  # before there are limits: it is large
            from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast
    _limit(order["cpu_s"], order["memory"])
    try:
        _try(order["files"])
    except Broken:
        sys.exit(_BROKEN)
    except MemoryError:
        sys.exit(_MEMORY)


def _try(files: Mapping[str, str]) -> None:
    try:
        tokenizer = Tokenizer(files)
        messages = [Message("user", next(text for text in _SAID if _writes(tokenizer, text)))]
        tokenizer.decode(tokenizer.opening(messages))
        tokenizer.decode(tokenizer.following(messages, ended=True))
    except Broken:
        raise
    except UserError as error:
        if isinstance(error.__context__, MemoryError):
            raise error.__context__ from None


def _writes(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except Broken:
        raise
    except UserError:
        return False
    return True


def _limit(cpu_s: float, memory: int) -> None:
    """Allows so much more than what was taken until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = round(used.ru_utime + used.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            memory += int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
