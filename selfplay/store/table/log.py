"""The files of a table's log, as files: are they whole, and are they on the disk?

delta-rs waits for no disk, and takes an entry that a power cut has left empty for an empty commit. So a commit is made
durable here (`persist`) before anybody is told that it was made, and a log is looked at (`refuse_damage`) whenever a
table is opened: cheaply, at the entries since its last checkpoint. `check` reads all of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from selfplay.commands import command
from selfplay.episode.schema import PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import limits
from selfplay.store.table.entries import actions as actions
from selfplay.store.table.entries import run_counters

FOLDER = "_delta_log"
#: Beside the tables: what is still known of entries of the episodes table that were given back.
HISTORY = "history"
#: Of more entries in a row than this a log has not lost: what comes after is not of this log.
MOST_LOST = 1000
#: Names the newest checkpoint.
HINT = "_last_checkpoint"
_BASE = re.compile(r"[0-9]{20}\.base\.json")
_ENTRY = re.compile(r"^(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint\.parquet$")


class DamagedLog(UserError):
    """A file of the log is empty, torn or missing: what the table seems to hold may not be all."""


@dataclass(frozen=True)
class Fault:
    """A damaged file of a log.

    file: its name in the log's folder. version: of the entry or checkpoint, None for `_last_checkpoint`, and for an
    entry that is none of this log.
    what: such as "is empty".
    """

    file: str
    version: int | None
    what: str

    @property
    def is_entry(self) -> bool:
        return self.version is not None and _ENTRY.match(self.file) is not None


def place(table_uri: str, name: str) -> str:
    """The URI of a file of the log."""
    return storage.join(table_uri, FOLDER, name)


def entry_name(version: int) -> str:
    return f"{version:020d}.json"


def checkpoint_name(version: int) -> str:
    return f"{version:020d}.checkpoint.parquet"


def versions(table_uri: str) -> tuple[dict[int, int], dict[int, int]]:
    """Entries and checkpoints that are there: version -> bytes."""
    found: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for entry in storage.entries(storage.join(table_uri, FOLDER)):
        for pattern, sizes in zip((_ENTRY, _CHECKPOINT), found, strict=True):
            if match := pattern.match(entry.uri.rsplit("/", 1)[1]):
                sizes[int(match[1])] = entry.size
    return found


def check(table_uri: str, since_checkpoint: bool = False) -> list[Fault]:
    """What is damaged in the log, all of it read; entries that are missing between others included. Oldest first.

    since_checkpoint: of files older than the newest checkpoint only the sizes are looked at.
    """
    entries, checkpoints = versions(table_uri)
    newest = max(checkpoints, default=-1) if since_checkpoint else -1
    faults: list[Fault] = []
    for version in sorted(checkpoints):
        if 0 < checkpoints[version] and version < newest:
            continue
        reason = _checkpoint_fault(place(table_uri, checkpoint_name(version)))
        if reason is not None:
            faults.append(Fault(checkpoint_name(version), version, reason))
    whole = set(checkpoints) - {fault.version for fault in faults}
    faults += _hint_faults(table_uri, whole)
    first = min(entries, default=0)
    if first > 0 and not any(version >= first - 1 for version in whole):
        first = 0  # no checkpoint stands for what is missing before
    expected = max(first, given_back(table_uri))
    counters: dict[str, int] = {}
    for version in sorted(entries):
        if version < first:
            continue
        if version - expected > MOST_LOST:
            faults.append(Fault(entry_name(version), None, f"follows on {version - expected:,} that are not there"))
            continue
        faults += [Fault(entry_name(lost), lost, "is missing") for lost in range(expected, version)]
        expected = max(expected, version + 1)
        if 0 < entries[version] and version < newest:
            continue
        reason = _entry_fault(table_uri, version, counters)
        if reason is not None:
            faults.append(Fault(entry_name(version), version, reason))
    return faults


def _entry_fault(table_uri: str, version: int, counters: dict[str, int]) -> str | None:
    """What is wrong with an entry. counters: of runs, as the entries before it have set them; is brought forward."""
    try:
        found = actions(storage.read(place(table_uri, entry_name(version))))
    except ValueError as error:
        return str(error)
    added = [action["add"] for action in found if action.get("add")]
    episodes = table_uri.rstrip("/").endswith("/episodes")
    if any(episodes != (set(add["partitionValues"] or ()) == set(PARTITION_BY)) for add in added):
        return "is of another table"
    moved = run_counters(found)
    if any(counters.get(name, -1) >= value for name, value in moved.items()):
        return "is there a second time"
    counters |= moved
    return None


def given_back(table_uri: str) -> int:
    """Entries before this version may be missing in good order (`selfplay.store.table.log_trim`); 0 where none may."""
    corpus, _, table = storage.normalise(table_uri).rpartition("/")
    if table != "episodes":
        return 0
    names = storage.names(storage.join(corpus, HISTORY))
    return max((int(name[:20]) for name in names if _BASE.fullmatch(name)), default=0)


def _checkpoint_fault(uri: str) -> str | None:
    data = storage.read(uri, MOST_OTHER_BYTES)
    if not data:
        return "is empty"
    try:
        limits.read_through(uri, pq.ParquetFile(pa.BufferReader(data)), MOST_CHECKPOINT_BYTES)
    except (pa.ArrowException, OSError):
        return "cannot be read"
    return None


def _hint_faults(table_uri: str, checkpoints: set[int]) -> Iterator[Fault]:
    try:
        data = storage.read(place(table_uri, HINT))
    except FileNotFoundError:
        return
    version = _hinted(data)
    if version is None:
        yield Fault(HINT, None, "breaks off" if data else "is empty")
    elif version not in checkpoints:
        yield Fault(HINT, None, f"names the checkpoint of version {version}, which is missing or damaged")


def _hinted(data: bytes) -> int | None:
    try:
        return int(json.loads(data)["version"])
    except (ValueError, KeyError, TypeError):
        return None


def last_checkpoint(table_uri: str) -> int:
    """The version of the newest checkpoint; -1 where there is none."""
    try:
        version = _hinted(storage.read(place(table_uri, HINT), MOST_HINT_BYTES))
    except FileNotFoundError:
        version = None
    return max(versions(table_uri)[1], default=-1) if version is None else version


#: The largest entry that is read, one file of episodes takes about a kilobyte of it; the largest hint of a checkpoint;
#: and the largest other file.
MOST_ENTRY_BYTES, MOST_HINT_BYTES, MOST_OTHER_BYTES = 256 * 2**20, 2**20, 2**30
#: What a checkpoint may unpack to: a million files of episodes take about half of it.
MOST_CHECKPOINT_BYTES = 2 * 2**30
#: A checkpoint is written by the time that so many versions have followed.
_LATE_VERSIONS = 250
#: Files that this process has found fit to be read, by table. Files of a log are written once.
_fit: dict[str, set[str]] = {}


def refuse_unfit(table_uri: str, version: int | None = None) -> None:
    """Raises `UserError` where a file of a log is too large, or locally no regular file: it would be read to its end;
    and, locally, where a checkpoint unpacks to more than any.

    Costs a list of the folder, and locally a look at each file that this process has not seen. version: that is to be
    opened; None: the newest, for which a bucket is asked to list only what is not older than the last checkpoint.
    """
    folder = storage.normalise(storage.join(table_uri, FOLDER))
    fit = _fit.setdefault(folder, set())
    if storage.is_remote(table_uri):
        for entry in _listed(table_uri, fit, version):
            name = entry.uri.rsplit("/", 1)[1]
            if name not in fit:
                _refuse_large(entry.uri, name, entry.size)
                if name != HINT:
                    fit.add(name)
        return
    try:
        with os.scandir(folder) as files:
            new = [file for file in files if file.name not in fit]
    except (FileNotFoundError, NotADirectoryError):
        return  # no table; whoever opens it says so
    for file in new:
        try:
            status = file.stat()
        except FileNotFoundError:  # a link that leads nowhere, or deleted meanwhile
            continue
        storage.refuse_irregular(file.path, status)
        _refuse_large(file.path, file.name, status.st_size)
        if file.name.endswith(".parquet"):
            _refuse_bomb(file.path)
        if file.name != HINT:
            fit.add(file.name)


def _refuse_bomb(path: str) -> None:
    """Raises `UserError` for a checkpoint that unpacks to more than any: delta-rs keeps all of it in memory."""
    try:
        with pq.ParquetFile(path) as file:
            if not limits.is_small(file.metadata):
                limits.read_through(path, file, MOST_CHECKPOINT_BYTES)
    except (pa.ArrowException, OSError):
        return  # damaged: whoever opens the table says so


def _listed(table_uri: str, fit: set[str], version: int | None) -> Iterator[storage.Entry]:
    """The files of a log in a bucket that delta-rs may read to open a version, but for those long known to be fit."""
    known = max((int(name[:20]) for name in fit if _ENTRY.match(name)), default=None)
    first = (last_checkpoint(table_uri) if known is None else known) - _LATE_VERSIONS
    if first <= 0 or (version is not None and version < first + _LATE_VERSIONS):
        return storage.entries(storage.join(table_uri, FOLDER))
    return storage.entries(storage.join(table_uri, FOLDER), place(table_uri, entry_name(first - 1)))


def _refuse_large(path: str, name: str, size: int) -> None:
    most = MOST_HINT_BYTES if name == HINT else MOST_ENTRY_BYTES if name.endswith(".json") else MOST_OTHER_BYTES
    if size > most:
        raise UserError(f"{path} has {size:,} bytes, and at most {most:,} are read of such a file")


#: Entries that this process has found whole: table -> version -> size and time of writing; a bucket's: the last one.
_seen: dict[str, dict[int, tuple[int, int]]] = {}


def refuse_damage(table_uri: str, version: int) -> None:
    """Raises `DamagedLog` if an entry since the last checkpoint, up to `version`, is empty or breaks off.

    Costs a look at the size of each such entry, and at the ends of those that this process has not seen; in a bucket,
    where no write is ever half done, one list of those that it has not seen.
    """
    seen = _seen.setdefault(storage.normalise(table_uri), {})
    start = last_checkpoint(table_uri) + 1
    if start > version:
        start = max(0, version - 100)
    if storage.is_remote(table_uri):
        before = max(start - 1, max(seen, default=-1))
        if before < version:
            after = place(table_uri, entry_name(before)) if before >= 0 else None
            for entry in storage.entries(storage.join(table_uri, FOLDER), after):
                if not entry.size and _ENTRY.match(name := entry.uri.rsplit("/", 1)[1]):
                    raise damaged(table_uri, [Fault(name, int(name[:20]), "is empty")])
            seen.clear()
            seen[version] = (0, 0)
        return
    for number in [old for old in seen if not start <= old <= version]:
        del seen[number]
    for number in range(start, version + 1):
        path = storage.normalise(place(table_uri, entry_name(number)))
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue  # a checkpoint stands for it, else the table could not be opened
        now = status.st_size, status.st_mtime_ns
        if seen.get(number) != now:
            reason = _torn(path, status.st_size)
            if reason is not None:
                raise damaged(table_uri, [Fault(entry_name(number), number, reason)])
            seen[number] = now


def _torn(path: str, size: int) -> str | None:
    """What the ends of an entry show to be wrong with it."""
    with storage.open_regular(path) as file:
        first = file.read(1)
        file.seek(max(0, size - 64))
        last = file.read().rstrip()[-1:]
    if size == 0:
        return "is empty"
    return None if (first, last) == (b"{", b"}") else "breaks off"


def refuse_any_damage(table_uri: str) -> None:
    """Raises `DamagedLog` if any file of the log is damaged, however old; reads all of it."""
    if faults := check(table_uri):
        raise damaged(table_uri, faults)


def refuse_recent_damage(table_uri: str) -> None:
    """Raises `DamagedLog` if an entry is empty, or one since the last checkpoint is damaged: what older ones said is in
    the checkpoint."""
    if faults := check(table_uri, since_checkpoint=True):
        raise damaged(table_uri, faults)


def explain(table_uri: str, error: Exception) -> Exception:
    """Why a table cannot be opened: a `DamagedLog` where its log is damaged, else the error itself."""
    faults = check(table_uri)
    return damaged(table_uri, faults) if faults else error


def damaged(table_uri: str, faults: Sequence[Fault]) -> DamagedLog:
    """The error that names the first of these faults."""
    fault = next((fault for fault in faults if fault.is_entry), faults[0])
    version = "" if fault.version is None else f" (version {fault.version})"
    corpus = table_uri.rsplit("/", 1)[0]
    return DamagedLog(
        f"the log of the corpus is damaged: {place(table_uri, fault.file)}{version} {fault.what}; "
        f"`{command('repair', corpus)}` shows what can be restored"
    )


def persist(table_uri: str, after: int, version: int, data: bool = False) -> None:
    """Returns when the entries later than version `after`, up to `version`, whoever made them, are on the disk.

    data: the files that they add, too, but for those that are gone since. An answered request to a bucket is durable.
    Raises `DamagedLog`, also for an entry that is missing without a later checkpoint that stands for it.
    """
    if storage.is_remote(table_uri) or version <= after:
        return
    files: list[str] = []
    missing: list[int] = []
    for number in range(max(after, -1) + 1, version + 1):
        entry, checkpoint = place(table_uri, entry_name(number)), place(table_uri, checkpoint_name(number))
        if storage.exists(checkpoint):
            files += [file for file in (checkpoint, place(table_uri, HINT)) if storage.exists(file)]
            missing.clear()
            if not storage.exists(entry):
                continue
        elif not storage.exists(entry):
            missing.append(number)
            continue
        if data:
            added = [action["add"]["path"] for action in actions(storage.read(entry)) if "add" in action]
            files += [file for path in added if storage.exists(file := storage.join(table_uri, path))]
        elif not storage.size(entry):
            raise damaged(table_uri, [Fault(entry_name(number), number, "is empty")])
        files.append(entry)
    if missing:
        raise damaged(table_uri, [Fault(entry_name(missing[0]), missing[0], "is missing")])
    storage.sync(files)
