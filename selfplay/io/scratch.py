"""Local space of one user: crash logs, files of remote runs, caches, of which old entries are deleted; and secrets.

A folder in a shared temporary directory can be made, or linked elsewhere, by anyone before we come. So the space lies
in the user's own directories (XDG), and only where these cannot be used in a temporary one that is checked: made by
this user, mode 0700, not a link. Nothing is deleted but entries with the names that are given here, and no link is
followed on the way to them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from selfplay.errors import UserError

#: Entries that nobody has written to for this long are deleted when another of their kind is made.
KEEP_DAYS = 14.0
_APP = "selfplay"
_SECRET_BYTES = 32
_STAMP = r"\d{8}-\d{6}-\d+\.log"
#: Kinds of entries and the names they may have; others in the same folder are never touched.
_NAMES = {
    "errors": re.compile(_STAMP),
    "logs": re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]*-{_STAMP}"),
    "scalars": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-\d{8}-\d{6}-[A-Za-z0-9]+"),
    "spill": re.compile(r"query-\d+-[0-9a-f]{8}"),
}


def place(kind: str, name: str) -> Path:
    """The path of an entry, which need not exist; its folder does, and old entries of the same kind are deleted.

    kind: errors, logs, scalars or spill. Raises `UserError` for a name that entries of this kind do not have.
    """
    if not _NAMES[kind].fullmatch(name):
        raise UserError(f"{name!r} cannot name local files of a run")
    folder = _folder(_home("XDG_STATE_HOME", ".local/state"), kind)
    _delete_old(folder, _NAMES[kind])
    return folder / name


def cache() -> Path:
    """The folder of caches that this user alone can write, made if it is not there."""
    return _home("XDG_CACHE_HOME", ".cache")


def secret() -> bytes:
    """32 random bytes that only this user can read, made when they are asked for first."""
    path = _home("XDG_STATE_HOME", ".local/state") / "secret"
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) == _SECRET_BYTES:
                return found
            path.unlink()  # a disk has damaged it
        made = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(4)}")
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # of several processes one makes it
            os.link(made, path)
        made.unlink()


def kept() -> Path:
    """The folder for what must outlast this session. Raises `UserError` where only a temporary one can be used."""
    found = _lasting("XDG_STATE_HOME", ".local/state")
    if found is None:
        raise UserError("there is no folder of this user's own that lasts; set HOME or XDG_STATE_HOME to one")
    return found


def _home(variable: str, below_home: str) -> Path:
    """The first usable of: the XDG directory, its default below HOME, the temporary directory."""
    found = _lasting(variable, below_home)
    if found is not None:
        return found
    temporary = Path(tempfile.gettempdir())
    with contextlib.suppress(OSError):
        return _private(temporary / f"{_APP}-{os.getuid()}")
    return Path(tempfile.mkdtemp(prefix=f"{_APP}-{os.getuid()}-"))  # somebody else holds the name


def _lasting(variable: str, below_home: str) -> Path | None:
    """The first usable of: the XDG directory, its default below HOME; None where neither is."""
    given = Path(os.environ.get(variable, ""))
    user = Path(os.environ.get("HOME", ""))
    for base in (given, user / below_home):
        if base.is_absolute():
            with contextlib.suppress(OSError):
                base.mkdir(mode=0o700, parents=True, exist_ok=True)
                return _private(base / _APP)
    return None


def _folder(home: Path, kind: str) -> Path:
    try:
        return _private(home / kind)
    except PermissionError:
        return Path(tempfile.mkdtemp(prefix=f"{_APP}-{os.getuid()}-{kind}-"))


def _private(folder: Path) -> Path:
    """`folder`, made where it is missing. Raises `PermissionError` unless it is ours, closed to others, and no link."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that only this user can write")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def _delete_old(folder: Path, names: re.Pattern[str]) -> None:
    oldest = time.time() - KEEP_DAYS * 86400
    with contextlib.suppress(OSError), _opened(folder) as here:
        for name in os.listdir(here):
            if not names.fullmatch(name):
                continue
            with contextlib.suppress(OSError):  # another process deletes it, too
                found = os.lstat(name, dir_fd=here)
                if _written(name, found, here) >= oldest:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    shutil.rmtree(name, dir_fd=here)  # follows no link
                else:
                    os.unlink(name, dir_fd=here)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder itself: what is put in its place later is not touched."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _written(name: str, found: os.stat_result, here: int) -> float:
    """When the entry, or anything in it, was last written."""
    newest = found.st_mtime
    if stat.S_ISDIR(found.st_mode):
        for _, folders, files, inside in os.fwalk(name, dir_fd=here, follow_symlinks=False):
            times = (os.lstat(one, dir_fd=inside).st_mtime for one in (*folders, *files))
            newest = max([newest, *times])
    return newest
