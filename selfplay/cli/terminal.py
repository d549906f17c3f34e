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

#: A log from this size on is continued in a new file, bytes; a thousand players fill one in an hour or two.
LOG_BYTES = 32 * 2**20
#: Full logs of the present session that are left.
LOGS_KEPT = 8
#: Logs in a run's folder that are left when a session begins.
SESSIONS_KEPT = 20


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

    def rotate(self) -> None:
        """Goes on in a new file where the log has become large; of the former ones the newest few are left.

        No line is lost. A child that writes to descriptor 1 or 2 that it has inherited stays with the file in which it
        began.
        """
        if os.fstat(1).st_size < LOG_BYTES:
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        before = sorted(self.log.parent.glob(f"{self.log.stem}.*.log"), key=_number)
        number = _number(before[-1]) + 1 if before else 1
        os.rename(self.log, self.log.with_name(f"{self.log.stem}.{number}.log"))
        for old in before[: max(0, len(before) + 1 - LOGS_KEPT)]:
            old.unlink(missing_ok=True)
        _print_to(self.log)


def _number(log: Path) -> int:
    """Of a former log: NAME.3.log is the third; 0 for a name that means nothing here."""
    number = log.name.split(".")[-2]
    return int(number) if number.isdigit() else 0


def _print_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def forget_logs(folder: Path) -> None:
    """Deletes all but the newest logs of a run's former sessions."""
    logs = sorted(folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
    for old in logs[:-SESSIONS_KEPT]:
        old.unlink(missing_ok=True)


@contextlib.contextmanager
def taken(log: Path) -> Iterator[Terminal]:
    """Sends everything that is printed, by this process and its children, to `log`; gives back the real streams.

    The streams are restored on every way out, exceptions included. The duplicates are not inherited by children, so
    that a process that outlives us cannot hold a pipe open. Raises `OSError` where `log` cannot be opened.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))  # raises before anything is changed
    saved = os.dup(1), os.dup(2)  # os.dup makes descriptors that children do not inherit
    old_streams = sys.stdout, sys.stderr
    out = open(os.dup(saved[0]), "w", encoding="utf-8", errors="replace", buffering=1)
    err = open(os.dup(saved[1]), "w", encoding="utf-8", errors="replace", buffering=1)
    _print_to(log)
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
