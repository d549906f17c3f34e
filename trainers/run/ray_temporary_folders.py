"""The folders that Ray makes in /tmp/ray for each session that it starts here: ours are deleted.

A driver leaves a mark in the folder that its Ray has made. It deletes that folder in the end; where it did not come to
it, the next driver does, once the process of the mark is gone. Nothing else is touched: neither what others have
started, nor what looks like a session of ours by its name alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from selfplay.store.table.lease import born

MARK = "selfplay-driver.json"


@dataclass(frozen=True)
class _Mark:
    """The driver of a session; born: see `selfplay.store.table.lease`, so that a reused pid is told."""

    pid: int
    born: str


def mark(session: Path) -> None:
    """Says in the folder of a session that it is this process's."""
    (session / MARK).write_text(json.dumps({"pid": os.getpid(), "born": born(os.getpid())}))


def delete(session: Path) -> None:
    """Deletes a session of this process, which has ended."""
    about = _read(session)
    if about is not None and about.pid == os.getpid():
        shutil.rmtree(session, ignore_errors=True)


def delete_dead(folder: Path) -> None:
    """Deletes the sessions below a folder whose drivers were runs of this user, and are gone."""
    for session in folder.glob("session_*"):
        about = _read(session)
        if about is not None and born(about.pid) != about.born:
            shutil.rmtree(session, ignore_errors=True)


def _read(session: Path) -> _Mark | None:
    """The mark of a session, None where the folder or the mark is not this user's, or a link, or not as we write it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for path, kind in ((session, stat.S_ISDIR), (session / MARK, stat.S_ISREG)):
            status = path.lstat()
            if status.st_uid != os.getuid() or not kind(status.st_mode):
                return None
        about = json.loads((session / MARK).read_text())
        if session.name.endswith(f"_{int(about['pid'])}"):
            return _Mark(int(about["pid"]), str(about["born"]))
    return None
