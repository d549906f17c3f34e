"""Upkeep of the side tables: few files out of many small ones, and the small ones deleted.

Runs add a row at a time, and every row is a file. Nobody names a version of a side table, so what was replaced is only
kept for as long as a reader may need who has just opened the table.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.object_store import Patience
from selfplay.store.table import log
from selfplay.store.table.entries import sealed
from selfplay.store.table.limits import refuse_bombs
from selfplay.store.table.log_trim import log_files, oldest_kept, unneeded
from selfplay.store.table.table import MAX_COMMIT_RETRIES, SIDE_TABLES, first_line, open_table, pause

#: Files from this size on are left as they are, bytes.
LARGE_BYTES = 16 * 2**20
#: So many small files are read and rewritten at a time: their rows must fit in memory.
_AT_ONCE = 5000
#: Replaced files are kept this long, hours.
KEEP_HOURS = 24
_COUNTER = "upkeep"  # no series of rows has a name without a space


def compact(corpus_uri: str) -> tuple[int, int]:
    """Rewrites the small files of every side table into few; how many files all of them had before, and have now."""
    before = after = 0
    for name in SIDE_TABLES:
        place = storage.join(storage.normalise(corpus_uri), name)
        try:
            before += len(open_table(place).file_uris())
            while _merge(place, name):
                pass
            after += len(open_table(place).file_uris())
        except TableNotFoundError:
            continue
    return before, after


def small_files(corpus_uri: str) -> int:
    """How many small files the side tables have, all together."""
    count = 0
    for name in SIDE_TABLES:
        try:
            count += len(_small(open_table(storage.join(storage.normalise(corpus_uri), name))))
        except TableNotFoundError:
            continue
    return count


def give_back(corpus_uri: str, hours: float = KEEP_HOURS) -> None:
    """Deletes files that compaction has replaced more than so many hours ago, twice as many at most, and entries of the
    logs that are older than that.

    Of a side table only the newest version is ever read. Raises `DamagedLog` where entries may have to be repaired.
    """
    for name in SIDE_TABLES:
        place = storage.join(storage.normalise(corpus_uri), name)
        for entry in unneeded(place, hours / 24, hours / 24):
            storage.delete(entry.uri)
        files = log_files(place)
        oldest = oldest_kept(place, files, hours / 24) or 0
        for version in sorted(version for version in files if version < oldest):
            for entry in files[version]:
                storage.delete(entry.uri)


def _small(table: DeltaTable) -> list[dict[str, Any]]:
    files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [file for file in files if file["size_bytes"] < LARGE_BYTES]


def _merge(place: str, name: str) -> bool:
    """Makes one file of some small ones, sorted by key; whether there are more of them."""
    patience = Patience()
    for attempt in range(MAX_COMMIT_RETRIES):
        table = open_table(place)
        small, version = _small(table), table.version()
        old = small[:_AT_ONCE]
        if len(old) < 2:
            return False
        number = (table.transaction_version(_COUNTER) or 0) + 1
        now = int(time.time() * 1000)
        gone = [RemoveAction(file["path"], False, now, file["size_bytes"], {}) for file in old]
        try:
            merged = _written(place, name, table, {file["path"] for file in old}, now)
            seal = sealed([merged], {_COUNTER: number}, [file["path"] for file in old])
            table.create_write_transaction(
                [*gone, merged],
                "append",
                table.schema(),
                [],
                commit_properties=CommitProperties(
                    dict(seal), MAX_COMMIT_RETRIES, [Transaction(_COUNTER, number, now)]
                ),
            )
            table.update_incremental()
            log.persist(place, version, table.version())
            return len(small) > len(old)
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as error:
            if not patience.again(error):
                raise UserError(f"the table at {place} could not be compacted: {first_line(error)}") from error
    raise UserError(f"the table at {place} is changed by too many others at once; try again")


def _written(place: str, name: str, table: DeltaTable, paths: set[str], now: int) -> AddAction:
    dataset = table.to_pyarrow_dataset(filesystem=storage.arrow_filesystem(place))
    old = [one for one in dataset.get_fragments() if one.path.split("/")[-1] in paths]
    refuse_bombs(old)
    key = [(column, "ascending") for column in SIDE_TABLES[name].key]
    rows = pa.concat_tables([one.to_table(schema=dataset.schema) for one in old]).sort_by(key)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=10_000)
    data = memoryview(sink.getvalue())
    path = f"{hashlib.sha256(data).hexdigest()}.parquet"
    storage.create(storage.join(place, path), data, durable=True)
    return AddAction(path, len(data), {}, now, False, json.dumps({"numRecords": rows.num_rows}))
