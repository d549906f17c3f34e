"""The only door to files and object stores. Every place is a URI: a plain path, `file://…` or `s3://bucket/prefix`.

What each place guarantees is the same: `write` is atomic (a reader sees the old bytes or the new, never a part), and
`create` is put-if-absent (of any number of writers exactly one is told that it made the object). Locally that is a
temporary file with a rename or a hard link; on S3 a conditional put, so no lock service is needed. A store that does
not answer is asked again for a while (`selfplay.io.object_store`). The endpoint and the keys of S3 come from the usual
variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).

What was written survives the death of the process. To survive a power cut, too, it must be written with `durable=True`,
or be given to `sync` afterwards: then the bytes, the name, and every folder above it have reached the disk (fsync) when
the call returns. On an object store an answered request is durable in any case.

A missing object is `FileNotFoundError`. What only a person can cure (a full disk, no permission, an unknown bucket,
an endpoint that does not answer) is a `UserError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from selfplay.errors import Damaged, UserError
from selfplay.io import object_store

_TEMPORARY = ".partial-"
#: Requests to a bucket under way at once, where there are many to make.
_AT_ONCE = 32
_Answer = TypeVar("_Answer")
#: Bytes that a disk must have left for what is written beside the data.
_LEAST_FREE = 64 * 2**10


@dataclass(frozen=True)
class Entry:
    """One stored object.

    uri: where it is. size: bytes. modified: time of the last write, seconds since 1970 (UTC).
    """

    uri: str
    size: int
    modified: float


def is_remote(uri: str) -> bool:
    """Whether the URI names an object store rather than a local path."""
    return "://" in uri and not uri.startswith("file://")


def normalise(uri: str | os.PathLike[str]) -> str:
    """One spelling for one place: an absolute local path, or `s3://bucket/key`; no slash at the end.

    Raises `UserError` for what can be neither.
    """
    text = os.fspath(uri)
    if not text.isascii() and not _is_unicode(text):
        raise UserError(f"{text!r} is not valid UTF-8; rename the folder, or give another")
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if not is_remote(text):
        if text.startswith(("s3:", "s3a:")):
            raise UserError(f"{text!r} is not a place that can be used; give a path or s3://bucket/prefix")
        return os.path.abspath(os.path.expanduser(text))
    scheme, rest = text.split("://", 1)
    if scheme in ("gs", "gcs", "az", "abfs", "abfss"):
        raise UserError(
            f"{text!r}: {scheme}:// is not supported, only s3://bucket/prefix (Amazon's, or any store with S3's "
            "conditional writes, by AWS_ENDPOINT_URL) and folders that all machines see"
        )
    if scheme not in ("s3", "s3a"):
        raise UserError(f"{text!r} is not a place that can be used; give a path or s3://bucket/prefix")
    parts = [part for part in rest.split("/") if part]
    if not parts:
        raise UserError(f"{text!r} names no bucket; give s3://bucket/prefix")
    if "." in parts or ".." in parts:
        raise UserError(f"{text!r} goes through . or .., which a bucket does not have; leave them out")
    return "s3://" + "/".join(parts)


def _is_unicode(text: str) -> bool:
    """False for a path whose bytes are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(uri: str, *parts: str) -> str:
    """The place `parts` below `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def is_below(uri: str, folder: str) -> bool:
    """Whether a place lies in a folder, links on the way followed. False for what names no place."""
    if "\0" in uri or is_remote(uri) != is_remote(folder):
        return False
    if is_remote(uri) and not uri.startswith(("s3://", "s3a://")):
        return False
    place, root = normalise(uri), normalise(folder)
    if not is_remote(uri):
        place, root = os.path.realpath(place), os.path.realpath(root)
    return place.startswith(f"{root.rstrip('/')}/")


def write(uri: str, data: bytes | memoryview, durable: bool = False) -> None:
    """Writes the object, atomically, over whatever was there. durable: survive a power cut, too."""
    with _told(uri):
        if is_remote(uri):
            body = bytes(data)
            _ask(uri, lambda store, key: _obstore().put(store, key, body))
            return
        _write_local(Path(normalise(uri)), data, durable, replace=True)


def upload(file: Path, uri: str) -> None:
    """Copies a local file to a remote place, in parts where it is large."""
    with _told(uri):
        _ask(uri, lambda store, key: _obstore().put(store, key, file))


def create(uri: str, data: bytes | memoryview, durable: bool = False) -> bool:
    """Writes the object if there is none. False, and nothing written, if there is.

    durable: the object survives a power cut, whether it was written now or was there.
    """
    with _told(uri):
        if not is_remote(uri):
            return _write_local(Path(normalise(uri)), data, durable, replace=False)
        return object_store.create(normalise(uri), bytes(data))


def sync(uris: Sequence[str]) -> None:
    """Returns when these objects, whoever wrote them, would survive a power cut. Raises `FileNotFoundError`."""
    folders: dict[Path, None] = {}
    for uri in uris:
        if not is_remote(uri):
            path = Path(normalise(uri))
            with _told(uri):
                _fsync(path)
            folders[path.parent] = None
    for folder in folders:
        with _told(str(folder)):
            _fsync_folder(folder)


def read(uri: str, most: int | None = None) -> bytes:
    """The bytes of the object.

    Raises `FileNotFoundError`, `UserError` for one of more than `most` bytes, and `Damaged` as `open_regular`.
    """

    def fetch(store: Any, key: str) -> bytes:
        answer = _obstore().get(store, key)
        _refuse_large(uri, int(answer.meta["size"]), most)
        return bytes(answer.bytes())

    with _told(uri):
        if is_remote(uri):
            return _ask(uri, fetch)
        with open_regular(normalise(uri)) as file:
            _refuse_large(uri, os.fstat(file.fileno()).st_size, most)
            return file.read()


def open_regular(path: str) -> BinaryIO:
    """Opens a local file to read it. Raises `Damaged` for a pipe, a device or a socket, which may never end."""
    refuse_irregular(path, os.stat(path))
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        refuse_irregular(path, os.fstat(file.fileno()))
    except Damaged:
        file.close()
        raise
    return file


def refuse_irregular(path: str, status: os.stat_result) -> None:
    """Raises `Damaged` for what is neither a regular file nor a folder, which `open` refuses itself."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise Damaged(path, "it is a pipe, a device or a socket, and not a regular file")


def _refuse_large(uri: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise UserError(f"{uri} has {size:,} bytes, and at most {most:,} are read of such a file")


def size(uri: str) -> int:
    """Bytes of the object. Raises `FileNotFoundError`."""
    with _told(uri):
        if is_remote(uri):
            return _ask(uri, lambda store, key: int(_obstore().head(store, key)["size"]))
        return Path(normalise(uri)).stat().st_size


def sizes(uris: Sequence[str]) -> list[int | None]:
    """Bytes of each object, None for one that is missing; objects of a bucket are asked for side by side."""

    def look(uri: str) -> int | None:
        try:
            return size(uri)
        except FileNotFoundError:
            return None

    if len(uris) < 2 or not is_remote(uris[0]):
        return [look(uri) for uri in uris]
    with ThreadPoolExecutor(min(len(uris), _AT_ONCE)) as pool:
        return list(pool.map(look, uris))


def exists(uri: str) -> bool:
    """Whether there is an object (or, locally, a folder) of this name."""
    if not is_remote(uri):
        return Path(normalise(uri)).exists()
    try:
        size(uri)
    except FileNotFoundError:
        return False
    return True


def refuse_unseen(uri: str) -> None:
    """For an actor: its run's driver uses this place. A store that is silent is given the driver's patience.

    Raises `UserError` where a local folder that the driver has made is not there: this is another machine.
    """
    if is_remote(uri):
        object_store.trust(normalise(uri))
    elif not exists(uri):
        raise UserError(
            f"{normalise(uri)} is a folder that {os.uname().nodename} does not see; where a run spans machines, "
            "give s3://bucket/prefix, or a folder that they share"
        )


def entries(uri: str, after: str | None = None) -> Iterator[Entry]:
    """All objects below `uri`, in no order; none if there is no such place. Unfinished writes are left out.

    after: a URI; a bucket then names only objects that sort after it.
    """
    if is_remote(uri):
        bucket = normalise(uri).split("/")[2]
        with _told(uri):
            for meta in object_store.listed(normalise(uri), None if after is None else normalise(after)):
                yield Entry(f"s3://{bucket}/{meta['path']}", int(meta["size"]), meta["last_modified"].timestamp())
        return
    with _told(uri):
        for folder, _, names in os.walk(normalise(uri)):
            for name in names:
                if name.startswith(_TEMPORARY):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    path = os.path.join(folder, name)
                    status = os.stat(path)
                    yield Entry(path, status.st_size, status.st_mtime)


def names(uri: str) -> list[str]:
    """Names, sorted, of the objects directly below `uri`."""
    prefix = normalise(uri) + "/"
    below = (entry.uri.removeprefix(prefix) for entry in entries(uri))
    return sorted(name for name in below if "/" not in name)


def delete(uri: str) -> None:
    """Deletes the object; nothing happens if there is none."""
    with _told(uri), contextlib.suppress(FileNotFoundError):
        if is_remote(uri):
            _ask(uri, lambda store, key: _obstore().delete(store, key))
            return
        os.unlink(normalise(uri))


def delete_tree(uri: str) -> None:
    """Deletes everything below `uri`."""
    if not is_remote(uri):
        with _told(uri):
            shutil.rmtree(normalise(uri), ignore_errors=True)
        return
    for entry in list(entries(uri)):
        delete(entry.uri)


def move(uri: str, place: str) -> None:
    """Gives the object another name at the same kind of place, over whatever was there. Raises `FileNotFoundError`."""
    with _told(uri):
        if is_remote(uri):
            write(place, read(uri))
            delete(uri)
            return
        target = Path(normalise(place))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(normalise(uri), target)


def server_time(uri: str) -> float:
    """The present time by the clock that stamps `Entry.modified` below `uri`, in seconds since 1970.

    Ages of objects must be judged by one clock, and that of an object store is not ours.
    """
    probe = join(uri, f"{_TEMPORARY}clock-{uuid.uuid4().hex}")
    write(probe, b"")
    try:
        if not is_remote(probe):
            return os.stat(normalise(probe)).st_mtime
        with _told(probe):
            return _ask(probe, lambda store, key: float(_obstore().head(store, key)["last_modified"].timestamp()))
    finally:
        delete(probe)


def deltalake_options(uri: str) -> dict[str, str]:
    """The storage options with which deltalake opens tables at `uri`; keys and endpoint come from the environment.

    Raises `UserError` where nobody answers at the endpoint: deltalake itself would wait much longer.
    """
    if not is_remote(uri):
        return {}
    with _told(uri):
        object_store.knock(normalise(uri))
    options = object_store.deltalake_retries()
    endpoint = object_store.endpoint()
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
    return options


def arrow_filesystem(uri: str) -> Any:
    """The pyarrow filesystem whose root is the folder at `uri`: pyarrow's own, in C++.

    deltalake's default is one written in Python, called from Arrow's threads; where one of them still reads ahead
    while the interpreter ends, the process aborts.
    """
    import pyarrow.fs as pafs

    place = normalise(uri)
    if not is_remote(place):
        return pafs.SubTreeFileSystem(place, pafs.LocalFileSystem())
    endpoint = object_store.endpoint()
    patience = pafs.AwsStandardS3RetryStrategy(max_attempts=12)
    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": 30, "retry_strategy": patience}
    if _is_set("AWS_SKIP_SIGNATURE"):
        options["anonymous"] = True
    if _is_set("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        options["force_virtual_addressing"] = True
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"endpoint_override": host, "scheme": scheme or "https"}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    return pafs.SubTreeFileSystem(place.removeprefix("s3://"), pafs.S3FileSystem(**options))


def fault(point: str) -> None:
    """Ends this process with SIGKILL where a test asks for it: SELFPLAY_FAULT="point" or "point:3" (third time)."""
    wanted = os.environ.get("SELFPLAY_FAULT")
    if wanted is None:
        return
    name, _, count = wanted.partition(":")
    if name != point:
        return
    _reached[point] = _reached.get(point, 0) + 1
    if _reached[point] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


_reached: dict[str, int] = {}


def refuse_full(uri: str, size: int) -> None:
    """Raises `UserError` where a local disk has no room for so many bytes, and some for an entry of a log.

    For writers that do not say so in a sentence: those of Delta panic, and tell that, too.
    """
    path = Path(normalise(uri))
    if not is_remote(uri) and path.exists() and shutil.disk_usage(path).free < size + _LEAST_FREE:
        raise UserError(f"the disk is full: nothing more can be written to {uri}; make room and run again")


def now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)


def _write_local(path: Path, data: bytes | memoryview, durable: bool, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = (replace or not path.exists()) and _write_beside(path, data, durable, replace)
    if durable:
        if not made:
            _fsync(path)
        _fsync_folder(path.parent)
    return made


def _write_beside(path: Path, data: bytes | memoryview, durable: bool, replace: bool) -> bool:
    """Writes a temporary file in the same folder, then gives it its name; False if the name was taken."""
    temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


#: Folders, by device and inode, whose names this process knows to be on the disk, up to the root.
_lasting: set[tuple[int, int]] = set()


def _fsync_folder(folder: Path) -> None:
    """The names in a folder reach the disk, and so do those of the folder and of all above it, once a process.

    Whoever made them: another process may have, a moment ago.
    """
    _fsync(folder)
    above: list[tuple[int, int]] = []
    while (key := _identity(folder)) not in _lasting and folder != folder.parent:
        folder = folder.parent
        with contextlib.suppress(PermissionError):  # nobody who may not read it has made anything in it
            _fsync(folder)
        above.append(key)
    _lasting.update(above)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # a file system whose folders need no fsync says so
            raise
    finally:
        os.close(descriptor)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def _ask(uri: str, request: Callable[[Any, str], _Answer]) -> _Answer:
    return object_store.ask(normalise(uri), request)


def _obstore() -> Any:
    import obstore

    return obstore


def _errors() -> Any:
    import obstore.exceptions

    return obstore.exceptions


class _told:
    """Turns what a person must cure into a `UserError`; a missing object stays a `FileNotFoundError`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, FileNotFoundError):
            if is_remote(self.uri) and "NoSuchBucket" in str(error):
                raise UserError(f"there is no bucket for {self.uri}; create it first") from error
            return
        if isinstance(error, OSError):
            _tell(self.uri, error)
        if not is_remote(self.uri):
            return
        errors = _errors()
        if isinstance(error, errors.NotFoundError):
            raise FileNotFoundError(self.uri) from error
        if isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError)):
            raise UserError(f"no permission for {self.uri}; check AWS_ACCESS_KEY_ID and its rights") from error
        if isinstance(error, errors.GenericError):
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the object store did not answer for {self.uri} ({reason})") from error


def _tell(uri: str, error: OSError) -> NoReturn:
    """Raises the `UserError` for errors of the file system that have a plain cause, else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise UserError(f"the disk is full: nothing more can be written to {uri}; make room and run again") from error
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        raise UserError(f"no permission to use {uri}; choose a place that this user can write") from error
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        raise UserError(f"{uri} runs through a file where a folder must be, or the other way round") from error
    if error.errno == errno.ELOOP:
        raise UserError(f"{error.filename or uri} is a link that leads back to itself; remove it") from error
    if error.errno == errno.ENAMETOOLONG:
        raise UserError(f"{uri[:60]}… is too long for the name of a file; give a shorter one") from error
    raise error
