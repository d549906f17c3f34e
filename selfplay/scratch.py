"""What this machine keeps of runs that live in an object store, and of faults: one folder a user, not for ever."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

#: What nobody has written to for so long is deleted when the next of its kind is made.
KEEP_DAYS = 14.0


def place(kind: str, name: str) -> Path:
    """A file or folder of this name, which need not exist; of the same kind, what is old is deleted."""
    root = Path(tempfile.gettempdir()) / f"selfplay-{os.getuid()}" / kind
    oldest = time.time() - KEEP_DAYS * 86400
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # another run deletes it, too
            if _written(path) < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return root / name


def _written(path: Path) -> float:
    """When anything in it was last written."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
