"""Local scratch space: ours alone, old entries deleted, and nothing of anybody else's ever touched."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.io import scratch

OLD = time.time() - (scratch.KEEP_DAYS + 1) * 86400
LOG = "20260101-000000-1.log"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a shared temporary directory beside it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def old(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (OLD, OLD), follow_symlinks=False)
    return path


def test_what_is_old_is_deleted_and_what_is_in_use_is_not(home: Path) -> None:
    root = scratch.place("scalars", "a-20260101-000000-ab12").parent
    assert root == home / ".local/state/selfplay/scalars" and root.stat().st_mode & 0o777 == 0o700
    for name in ("old-20260101-000000-1", "used-20260101-000000-1"):
        old(root / name / "wandb/run")
        for folder in ("wandb", "."):
            os.utime(root / name / folder, (OLD, OLD))
    (root / "used-20260101-000000-1/wandb/run").touch()
    old(root / "thesis.txt")
    old(root / "thesis/chapter")
    os.utime(root / "thesis", (OLD, OLD))
    scratch.place("scalars", "b-20260101-000000-ab12")
    assert sorted(path.name for path in root.iterdir()) == ["thesis", "thesis.txt", "used-20260101-000000-1"]
    assert scratch.place("logs", f"x-{LOG}").parent != root


@pytest.mark.parametrize("name", ["../../x", "x", "20260101-000000-1.log/..", f"{LOG}\n", ""])
def test_a_strange_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name local files"):
        scratch.place("errors", name)


def test_where_home_cannot_be_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(old(home / "a file")))
    mine = Path(tempfile.gettempdir()) / f"selfplay-{os.getuid()}"
    assert scratch.place("errors", LOG) == mine / "errors" / LOG
    assert scratch.cache() == mine and mine.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    assert scratch.place("errors", LOG) == home / "state/selfplay/errors" / LOG
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert scratch.place("errors", LOG).parent.parent == mine


@pytest.mark.parametrize("where", ["folder", "kind", "open", "entry", "in home"])
def test_what_others_laid_there_is_neither_followed_nor_deleted(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Anyone may make links in a shared temporary directory, with names that we would delete behind them."""
    victim = home / "victim"
    old(victim / LOG)
    old(victim / "errors" / LOG)
    mine = Path(tempfile.gettempdir()) / f"selfplay-{os.getuid()}"
    if where == "in home":
        (home / ".local/state/selfplay").mkdir(parents=True, mode=0o700)
        (home / ".local/state/selfplay/errors").symlink_to(victim)
    else:
        monkeypatch.setenv("HOME", "/dev/null")
    if where == "folder":
        mine.symlink_to(victim)
    elif where == "kind":
        mine.mkdir(mode=0o700)
        (mine / "errors").symlink_to(victim)
    elif where == "open":
        mine.mkdir()
        mine.chmod(0o777)
        old(mine / "errors" / LOG)
    elif where == "entry":
        (mine / "errors").mkdir(parents=True, mode=0o700)
        mine.chmod(0o700)
        (mine / "errors/20260101-000000-2.log").symlink_to(victim)
        os.utime(mine / "errors/20260101-000000-2.log", (OLD, OLD), follow_symlinks=False)
    made = scratch.place("errors", "20260101-000000-3.log")
    made.write_text("a traceback")
    assert sorted(victim.rglob("*")) == sorted([victim / LOG, victim / "errors", victim / "errors" / LOG])
    assert victim not in made.resolve().parents and made.parent.stat().st_mode & 0o777 == 0o700
    if where == "entry":
        assert os.listdir(mine / "errors") == [made.name], "an old link goes, not what it leads to"
    if where == "open":
        assert (mine / "errors" / LOG).exists() and mine not in made.parents
