"""Deletes history that nobody can ask for any more: old entries of the log, and the files that they say were replaced.

A run adds an entry to the log of the episodes table with each commit, and its compactions replace thousands of small
files. Kept for ever, that is most of what a corpus takes after a year. What stays readable: every version of the last
days, and every released version; of each of the latter, the checkpoint before it and the entries from there on are
kept, about a hundred. What runs had at the versions from which a learner filled its window (table `uses`) is written
down first (`selfplay.store.table.history`). No episode of the newest version is touched, and what keeps every episode
in the table exactly once is in each checkpoint, too.

Each step makes sense without the next, so it may end anywhere: replaced files are deleted while their entries still
name them, then the history is written, then the entries go, oldest first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import history, log
from selfplay.store.table.snapshot import Snapshot, itself, open
from selfplay.store.table.table import episodes_uri, log_entries, open_table

#: A file in no version is kept for this long, days: its writer may still come to commit it.
SLOW_WRITER_DAYS = 7
#: Entries that are read, and files that are deleted, at once.
_AT_ONCE = 32


@dataclass(frozen=True)
class Trimmed:
    """What was deleted, or is to be deleted.

    files, bytes: of the log. data_files, data_bytes: of the episodes. oldest: all versions from this one on can be
    read. kept: released versions before it.
    """

    files: int
    bytes: int
    data_files: int
    data_bytes: int
    oldest: int
    kept: tuple[int, ...]


def trim_log(uri: str, days: float, dry_run: bool = True) -> Trimmed:
    """Deletes what only versions need that are older than `days` and not released.

    Safe beside writers, and readers of what stays, and to interrupt. Raises `DamagedLog` where entries are damaged that
    are to go, or that are newer than the last checkpoint: the files are needed to repair them.
    """
    corpus = open(itself(uri))
    before = log.given_back(episodes_uri(corpus.uri))
    try:
        return _trim(corpus, days, dry_run)
    except UserError:
        if log.given_back(episodes_uri(corpus.uri)) == before:
            raise
    return trim_log(uri, days, dry_run)  # another has deleted meanwhile what this one was about to read


def _trim(corpus: Snapshot, days: float, dry_run: bool) -> Trimmed:
    table = episodes_uri(corpus.uri)
    files = log_files(table)
    oldest = oldest_kept(table, files, days)
    if oldest is None:
        return Trimmed(0, 0, 0, 0, min(files), ())
    log.refuse_recent_damage(table)
    released = _released(corpus)
    pinned = sorted(version for version in released if version < oldest)
    checkpoints = _checkpoints(files)
    needed: set[int] = set()
    for version in pinned:
        needed |= set(range(max((v for v in checkpoints if v <= version), default=0), version + 1))
    gone = [version for version in sorted(files) if version < oldest and version not in needed]
    data = _replaced(corpus, range(log.given_back(table) + 1, oldest + 1), oldest, pinned)
    if (gone or data) and not dry_run:
        if _released(corpus) != released:
            return _trim(corpus, days, dry_run)  # what was released meanwhile must stay
        _delete(entry.uri for entry in data)
        storage.fault("before_history")
        used = {version: runs for version, runs in _used(corpus).items() if version < oldest}
        history.write_down(corpus.uri, used, oldest, {file["partition.run_id"] for file in corpus.files()})
        for version in gone:
            storage.fault("before_entry")
            _delete(entry.uri for entry in files[version])
    entries = [entry for version in gone for entry in files[version]]
    return Trimmed(len(entries), _size(entries), len(data), _size(data), oldest, tuple(pinned))


def delete_orphans(uri: str, days: float) -> tuple[int, int]:
    """Deletes data files that no version of the last `days`, and no released one, needs; how many, and their bytes.

    Blocks whose writer died before they were committed, and what an interrupted compaction or trimming has left. They
    must have lain there for a week longer than `days`: a slow writer that lives loses nothing.
    """
    corpus = open(itself(uri))
    table, released = episodes_uri(corpus.uri), _released(corpus)
    old = unneeded(table, days, SLOW_WRITER_DAYS, released)
    if _released(corpus) != released:
        return delete_orphans(uri, days)
    _delete(entry.uri for entry in old)
    return len(old), _size(old)


def unneeded(table: str, days: float, slow_days: float, released: Iterable[int] = ()) -> list[storage.Entry]:
    """Data files of a table that no version of the last `days`, and none of those `released`, needs.

    A file that is young is left out, as its writer may yet commit it: that it is in no version now says nothing. It
    counts as young for `slow_days` longer than `days`. Raises `DamagedLog` where a file's entry may have been lost.
    """
    oldest = oldest_kept(table, log_files(table), days)
    if oldest is None:
        return []
    log.refuse_recent_damage(table)
    before = storage.server_time(table) - (days + slow_days) * 86400
    inside = storage.join(table, log.FOLDER) + "/"
    old = [
        entry
        for entry in storage.entries(table)
        if entry.uri.endswith(".parquet") and not entry.uri.startswith(inside) and entry.modified < before
    ]
    needed = _named_by(table, (oldest, *(version for version in released if version < oldest)))
    return [entry for entry in old if entry.uri not in needed]


def is_due(uri: str, days: float) -> bool:
    """Whether the log reaches back by a day more than it has to."""
    table = episodes_uri(uri)
    entries = storage.entries(storage.join(table, log.FOLDER))
    if storage.is_remote(table):
        entries = islice(entries, 1)  # a bucket names the oldest first
    oldest = min((entry.modified for entry in entries), default=None)
    return oldest is not None and oldest < storage.server_time(table) - (days + 1) * 86400


def log_files(table: str) -> dict[int, list[storage.Entry]]:
    """Entries and checkpoints of the log, by version."""
    files: dict[int, list[storage.Entry]] = defaultdict(list)
    for entry in storage.entries(storage.join(table, log.FOLDER)):
        stem = entry.uri.rsplit("/", 1)[1].split(".")[0]
        if len(stem) == 20 and stem.isdigit():
            files[int(stem)].append(entry)
    return files


def _checkpoints(files: dict[int, list[storage.Entry]]) -> list[int]:
    return sorted(v for v, found in files.items() if any(".checkpoint" in entry.uri for entry in found))


def oldest_kept(table: str, files: dict[int, list[storage.Entry]], days: float) -> int | None:
    """The newest version with a checkpoint that is older than `days`; None: there is none.

    All versions of the last days can be read from it on.
    """
    before = storage.server_time(table) - days * 86400
    old = [v for v in _checkpoints(files) if all(entry.modified < before for entry in files[v])]
    return old[-1] if old else None


def _replaced(corpus: Snapshot, versions: Iterable[int], oldest: int, pinned: Iterable[int]) -> list[storage.Entry]:
    """Data files that the commits of `versions` took out, and that no readable version needs.

    Those are all from `oldest` on, and the pinned ones. A file that was taken out may be committed again under its
    name, by a repair, and be taken out once more: versions in between need it.
    """
    table = episodes_uri(corpus.uri)

    def named(version: int, what: str) -> set[str]:
        try:
            actions = log_entries(table, version)
        except FileNotFoundError:
            raise log.damaged(table, [log.Fault(log.entry_name(version), version, "is missing")]) from None
        return {storage.join(table, action[what]["path"]) for action in actions if what in action}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        gone = set[str]().union(*pool.map(lambda version: named(version, "remove"), versions))
        gone -= _named_by(table, (oldest, *pinned))
        later = range(oldest + 1, corpus.version + 1) if gone else ()
        gone = gone.difference(*pool.map(lambda version: named(version, "add"), later))
    paths = sorted(gone)
    return [
        storage.Entry(path, size, 0.0)
        for path, size in zip(paths, storage.sizes(paths), strict=True)
        if size is not None
    ]


def _named_by(table: str, versions: Iterable[int]) -> set[str]:
    """The data files of the newest version and of these, URIs."""
    found = set[str]()
    for version in (*versions, None):
        paths = pa.table(open_table(table, version).get_add_actions()).column("path").to_pylist()
        found |= {storage.join(table, path) for path in paths}
    return found


def _delete(uris: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(storage.delete, uris))


def _size(entries: Iterable[storage.Entry]) -> int:
    return sum(entry.size for entry in entries)


def _released(corpus: Snapshot) -> set[int]:
    versions = set(corpus.table("releases").column("table_version").to_pylist())
    if None in versions:
        raise UserError(f"the table of releases of {corpus.uri} does not say which version one of them is")
    return {int(version) for version in versions}


def _used(corpus: Snapshot) -> dict[int, set[str]]:
    """Versions of the episodes table from which learners have filled their windows, with the runs of these."""
    found: dict[int, set[str]] = defaultdict(set)
    for batch in corpus.table("uses", ["run_id", "events"]).to_batches():
        events, rows = pc.list_flatten(batch.column("events")), pc.list_parent_indices(batch.column("events"))
        version = pc.struct_field(events, "table_version")
        refill = pc.and_(pc.equal(pc.struct_field(events, "what"), "refill"), pc.is_valid(version))
        runs = batch.column("run_id").take(rows.filter(refill)).to_pylist()
        for run_id, at in zip(runs, version.filter(refill).to_pylist(), strict=True):
            found[at].add(run_id)
    return found
