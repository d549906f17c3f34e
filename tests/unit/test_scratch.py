"""What remote runs leave on this machine does not grow for ever."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from selfplay import scratch


def test_what_is_old_is_deleted_and_what_is_in_use_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = scratch.place("scalars", "x").parent
    assert not root.exists()
    for name in ("old/wandb/run", "used/wandb/run", "new"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "log").touch()
    before = time.time() - (scratch.KEEP_DAYS + 1) * 86400
    for name in ("old/wandb/run", "old/wandb", "old", "used/wandb", "used", "log"):
        os.utime(root / name, (before, before))
    assert scratch.place("scalars", "used") == root / "used"
    assert sorted(path.name for path in root.iterdir()) == ["new", "used"]
    assert scratch.place("logs", "x").parent != root
