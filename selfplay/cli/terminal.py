"""The terminal belongs to one writer: file descriptors 1 and 2 go to a log file, the display keeps the real ones.

Ray, RLlib, wandb and C++ libraries print from many processes and below Python's `sys.stdout`; children inherit the
descriptors. Redirecting the descriptors themselves is the one way that no such line reaches the screen.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


class Logged(Exception):
    """An unexpected error, as one sentence; its traceback is already in `log`."""

    def __init__(self, sentence: str, log: Path) -> None:
        super().__init__(sentence)
        self.log = log


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"


@dataclass(frozen=True)
class Terminal:
    """The real standard streams of the process while `taken` holds.

    out: text stream on the real standard output; err: on the real standard error.
    log: the file that descriptors 1 and 2 write to meanwhile.
    """

    out: TextIO
    err: TextIO
    log: Path


@contextlib.contextmanager
def taken(log: Path) -> Iterator[Terminal]:
    """Sends everything that is printed, by this process and its children, to `log`; gives back the real streams.

    The streams are restored on every way out, exceptions included. The duplicates are not inherited by children, so
    that a process that outlives us cannot hold a pipe open. Raises `OSError` where `log` cannot be opened.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    saved = os.dup(1), os.dup(2)  # os.dup makes descriptors that children do not inherit
    old_streams = sys.stdout, sys.stderr
    out = open(os.dup(saved[0]), "w", encoding="utf-8", errors="replace", buffering=1)
    err = open(os.dup(saved[1]), "w", encoding="utf-8", errors="replace", buffering=1)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    # New Python streams on the redirected descriptors: the old ones may belong to a test's capture.
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    try:
        yield Terminal(out, err, log)
    finally:
        for stream in (sys.stdout, sys.stderr, out, err):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = old_streams
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in saved:
            os.close(descriptor)
        for stream in (out, err):
            with contextlib.suppress(OSError):
                stream.close()
