"""Upkeep of a corpus: few large files out of many small ones, runs deleted, room given back.

All go through the log, beside any number of writers and readers; a reader keeps the version that it opened. What they
change must be named: a run's folder that leads to a corpus elsewhere is refused
(`selfplay.store.table.snapshot.itself`).

Compaction is our own: deltalake's does not see that files which it replaces were replaced or deleted meanwhile (1.6.6:
two compactions from one version both succeed, and every episode is there twice). Here whatever takes files of a run
out of the table moves one counter of that run in the same commit; of two at once one loses, and begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from selfplay.episode.schema import PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.object_store import Patience
from selfplay.store.table import deletions, log, side_tables
from selfplay.store.table.commit import is_fenced
from selfplay.store.table.counts import Counts, counters
from selfplay.store.table.entries import sealed
from selfplay.store.table.snapshot import Snapshot, itself, open
from selfplay.store.table.table import (
    MAX_COMMIT_RETRIES,
    check_name,
    episodes_uri,
    first_line,
    log_entries,
    open_table,
    pause,
)
from selfplay.store.table.write import MADE_BY, write_file

#: Size of a compacted file, bytes.
TARGET_BYTES = 64 * 2**20
#: Files that no version needs, or that were written and never committed, are kept this long: a slow writer may still
#: come to commit, and a reader may still read.
RETENTION_HOURS = 7 * 24
#: Files, and bytes of them, that are read side by side: a bucket answers late.
_AT_ONCE, _AT_ONCE_BYTES = 32, 8 * 2**20


@dataclass(frozen=True)
class Compacted:
    """What compaction did. version: of the table after it; the same as before where nothing was to be done.

    files_before, files_after: of the runs that it was asked for, with what others have added meanwhile. side_before,
    side_after: files of the side tables, all together.
    """

    version: int
    files_before: int
    files_after: int
    side_before: int
    side_after: int


def compact(uri: str, target_bytes: int = TARGET_BYTES, run_id: str | None = None) -> Compacted:
    """Rewrites small files of the newest version into few, within each run. Episodes stay as they are, to the byte.

    Small is below half the target. A run with one small file is left as it is. run_id: of the only run whose files are
    rewritten, None: all. The side tables, which all runs share, are compacted in any case.
    """
    corpus = open(itself(uri))
    files = _files_of(corpus, run_id)
    for part in sorted({_partition(file) for file in files}):
        _rewrite(corpus.uri, part[1], lambda now, part=part: _merged(now, part, target_bytes))
    side = side_tables.compact(corpus.uri)
    after = open(corpus.uri)
    return Compacted(after.version, len(files), len(_files_of(after, run_id)), *side)


def small_files(corpus: Snapshot, run_id: str, target_bytes: int = TARGET_BYTES) -> int:
    """How many files of a run compaction would rewrite, if there are two or more."""
    return sum(_is_small(file, target_bytes) for file in _files_of(corpus, run_id))


def _files_of(corpus: Snapshot, run_id: str | None) -> list[dict[str, Any]]:
    return [file for file in corpus.files() if run_id in (None, _partition(file)[1])]


def _is_small(file: dict[str, Any], target_bytes: int) -> bool:
    return bool(file["size_bytes"] < target_bytes / 2)


def _merged(corpus: Snapshot, part: tuple[str, str], target_bytes: int) -> tuple[list[dict[str, Any]], list[AddAction]]:
    """Small files of a partition, and what takes their place, already written."""
    small = [file for file in corpus.files() if _partition(file) == part and _is_small(file, target_bytes)]
    if len(small) < 2:
        return [], []
    rows = sum(file["num_records"] for file in small)
    size = sum(file["size_bytes"] for file in small)
    adds = []
    for batch in _grouped(corpus, small, max(1, rows * target_bytes // size)):
        block = write_file(corpus.uri, batch.replace_schema_metadata({MADE_BY: b"compaction"}))
        adds.append(_add(block.path, block.size, block.stats, part))
        del batch  # the next is made meanwhile
    return small, adds


def _grouped(corpus: Snapshot, files: list[dict[str, Any]], rows: int) -> Iterator[pa.RecordBatch]:
    """The episodes of some files, `rows` of them at a time, by slot, epoch and number."""
    by_path = corpus.fragments()

    def read(file: dict[str, Any]) -> pa.Table:
        return by_path[file["path"]].to_table(schema=corpus.dataset.schema)

    held: list[pa.RecordBatch] = []
    count = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in _few(sorted(files, key=lambda file: (file["min.slot"], file["min.epoch"], file["min.number"]))):
            for batch in (batch for table in pool.map(read, some) for batch in table.to_batches()):
                held.append(batch)
                count += batch.num_rows
                if count >= rows:
                    joined = _joined(held)
                    held, count = [], 0
                    yield joined
                    del joined
    if count:
        yield _joined(held)


def _few(files: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same files, as many at a time as are read side by side."""
    some: list[dict[str, Any]] = []
    size = 0
    for file in files:
        if some and (len(some) == _AT_ONCE or size + file["size_bytes"] > _AT_ONCE_BYTES):
            yield some
            some, size = [], 0
        some.append(file)
        size += file["size_bytes"]
    if some:
        yield some


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def _partition(file: dict[str, Any]) -> tuple[str, str]:
    return file["partition.kind"], file["partition.run_id"]


@dataclass(frozen=True)
class Deleted:
    """episodes: that the run had. version: the first without them."""

    episodes: int
    version: int


def delete_run(uri: str, run_id: str, why: str = "no reason given") -> Deleted:
    """Takes a run out of the newest version; older ones keep it until `vacuum`. `why` stays in the log.

    What is taken out is entered in the table `deletions` first, so that it is never a hole that nothing explains; an
    entry whose episodes are there still says nothing. Of a run that plays on, what is archived meanwhile stays.
    Raises `UserError` for a run that is not there.
    """
    note = {"why": why, "run_id": check_name("run id", run_id)}
    entered, corpus = set[str](), open(itself(uri))
    episodes = corpus.count(pc.field("run_id") == run_id)
    if not episodes:
        raise UserError(f"the corpus at {uri} has no run {run_id}")

    def gone(now: Snapshot) -> tuple[list[dict[str, Any]], list[AddAction]]:
        nonlocal episodes
        files = _files_of(now, run_id)
        there = {file["path"] for file in files}
        if files and not (entered and entered <= there):  # the first time, or they were compacted since
            episodes = deletions.enter(now, run_id, there, why, "delete-run")
            entered.clear()
            entered.update(there)
        return [file for file in files if file["path"] in entered], []

    def zeroed(table: DeltaTable, run_id: str) -> dict[str, int]:
        """Counters that say that the run has archived nothing, or no counters that count, where it plays on. A
        committer of the run finds its counter moved, and reads them anew."""
        counter = table.transaction_version(run_id)
        if counter is None:
            return {}
        held = {file["path"] for file in pa.table(table.get_add_actions(flatten=True)).to_pylist()
                if file["partition.run_id"] == run_id}  # fmt: skip
        moved = {run_id: counter + 1, **counters(run_id, Counts(), counter + 1)}
        return moved if held <= entered else {run_id: counter + 1, f"{run_id} counted": -1}

    for _ in range(MAX_COMMIT_RETRIES):
        try:
            _rewrite(corpus.uri, run_id, gone, note, zeroed)
            return Deleted(episodes, open(corpus.uri).version)
        except deletions.Moved:
            continue
    raise UserError(f"the corpus at {uri} is changed by too many others at once; try again")


def _rewrite(
    uri: str,
    run_id: str,
    change: Any,
    note: dict[str, str] | None = None,
    also: Callable[[DeltaTable, str], dict[str, int]] = lambda table, run_id: {},
) -> None:
    """Replaces files of a run in one commit. change: of the newest version, the files to go and the actions to come.
    also: counters that the commit moves, too."""
    counter = f"{run_id} upkeep"  # no slot has a space in its name
    patience = Patience()
    for attempt in range(MAX_COMMIT_RETRIES):
        corpus = open(uri)
        table = open_table(episodes_uri(uri), corpus.version)
        number = (table.transaction_version(counter) or 0) + 1
        old, new = change(corpus)
        if not old:
            return
        now = int(time.time() * 1000)
        gone = [RemoveAction(f["path"], not new, now, f["size_bytes"], _values(_partition(f))) for f in old]
        storage.fault("before_rewrite")
        if not all(storage.exists(storage.join(episodes_uri(uri), add.path)) for add in new):
            continue  # as old as an orphan of the same content, one of them was vacuumed meanwhile
        numbers = {counter: number, **also(table, run_id)}
        moved = [Transaction(app, at, now) for app, at in numbers.items()]
        seal = sealed(new, numbers, [file["path"] for file in old])
        try:
            properties = CommitProperties({**(note or {}), **seal}, MAX_COMMIT_RETRIES, moved)
            _commit(episodes_uri(uri), table, [*gone, *new], properties)
            storage.fault("after_rewrite")
            return
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as error:
            if patience.again(error):  # it may be changed: then nothing is left to do
                continue
            raise UserError(f"the corpus at {uri} could not be changed: {first_line(error)}") from error
    raise UserError(f"the corpus at {uri} is changed by too many others at once; try again")


def _commit(place: str, table: DeltaTable, actions: Sequence[Any], properties: CommitProperties) -> None:
    before = table.version()
    table.create_write_transaction(list(actions), "append", table.schema(), PARTITION_BY, commit_properties=properties)
    table.update_incremental()
    log.persist(place, before, table.version())


def _add(path: str, size: int, stats: str, part: tuple[str, str]) -> AddAction:
    return AddAction(path, size, _values(part), int(time.time() * 1000), False, stats)


def _values(part: tuple[str, str]) -> dict[str, str | None]:
    return {"kind": part[0], "run_id": part[1]}


@dataclass(frozen=True)
class Vacuumed:
    """files: deleted (or to be deleted), below the episodes table. bytes: their size.

    oldest: the oldest version that can be read afterwards, of those that are not released.
    kept: young files in no version whose writer may still come to commit them.
    """

    files: tuple[str, ...]
    bytes: int
    oldest: int
    kept: int


def vacuum(uri: str, hours: float = RETENTION_HOURS, dry_run: bool = True) -> Vacuumed:
    """Deletes files that the newest version and the released ones do not need and that are older than `hours`.

    That ends older versions. Files that were never committed go when their writer was fenced, or after a week: however
    few the hours, a slow writer that lives loses nothing. Raises `DamagedLog` where the log has lost an entry: a file
    that seems never to have been committed may then hold episodes that were acknowledged.
    """
    corpus = open(itself(uri))
    log.refuse_any_damage(episodes_uri(corpus.uri))
    place = episodes_uri(corpus.uri)
    released = _released(corpus)
    there = list(_data_files(place))  # first: what is committed from now on is either not listed, or needed
    needed = {file["path"] for version in (None, *released) for file in _at(corpus, version).files()}
    found = {path: entry for path, entry in there if path not in needed}
    removed = {path: at for path, at in _removed(place).items() if path not in needed}
    before = time.time() - hours * 3600
    ended = {path for path, (at, _) in removed.items() if at <= before or path not in found}
    orphans = {path for path in found if path not in removed and found[path].modified <= before}
    table = open_table(place)
    kept = {path for path in orphans if not _abandoned(table, found[path])}
    files = tuple(sorted((ended & set(found)) | (orphans - kept)))
    oldest = max((removed[path][1] for path in ended), default=log.given_back(place))
    if not dry_run and _released(corpus) != released:
        return vacuum(uri, hours, dry_run)  # what was released meanwhile must stay
    if not dry_run:
        for path in files:
            storage.delete(found[path].uri)
    return Vacuumed(files, sum(found[path].size for path in files), oldest, len(kept))


def _released(corpus: Snapshot) -> list[int]:
    """Versions that are pinned, ascending."""
    versions = set(corpus.table("releases").column("table_version").to_pylist())
    if None in versions:
        raise UserError(f"the table of releases of {corpus.uri} does not say which version one of them is")
    return sorted(map(int, versions))


def _abandoned(table: DeltaTable, orphan: storage.Entry) -> bool:
    """Whether nobody can come to commit a file any more: it is older than a week, or its writer was fenced."""
    if time.time() - orphan.modified > RETENTION_HOURS * 3600:
        return True
    try:
        data = pq.ParquetFile(pa.BufferReader(storage.read(orphan.uri)))
        if (data.schema_arrow.metadata or {}).get(MADE_BY) is not None:
            return False  # of a compactor, that no counter tells of
        rows = data.read(["episode_id", "slot", "epoch"])
    except (pa.ArrowException, OSError, KeyError):
        return False
    if not rows.num_rows:
        return False
    run_id = rows.column("episode_id")[0].as_py().split("/")[0]
    writers = {(row["slot"], row["epoch"]) for row in rows.select(["slot", "epoch"]).to_pylist()}
    return all(is_fenced(table, run_id, slot, epoch) for slot, epoch in writers)


def _at(corpus: Snapshot, version: int | None) -> Snapshot:
    return Snapshot(corpus.uri, open_table(episodes_uri(corpus.uri), version))


def _data_files(table: str) -> Iterator[tuple[str, storage.Entry]]:
    """Data files in the folder of a table, with their paths below it."""
    for entry in storage.entries(table):
        path = entry.uri.removeprefix(table).lstrip("/")
        if path.endswith(".parquet") and not path.startswith(log.FOLDER):
            yield path, entry


def _removed(table: str) -> dict[str, tuple[float, int]]:
    """Which files commits took out, as far as the log reaches back: when, seconds since 1970, and in which version."""
    found: dict[str, tuple[float, int]] = {}
    versions = sorted(log.versions(table)[0])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = pool.map(lambda version: log_entries(table, version), versions)
        for version, actions in zip(versions, entries, strict=True):
            for removed in (action["remove"] for action in actions if "remove" in action):
                found[removed["path"]] = (removed.get("deletionTimestamp") or 0) / 1000, version
    return found
