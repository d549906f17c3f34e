"""Episodes that a table holds more than once, and which of its files to keep.

That comes of a log that has lost the entry of a compaction, while a later compaction went on from what that one had
made: the files that it replaced are in the table again, beside the later one, which holds the same episodes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from selfplay.episode.batch import known
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.io import storage
from selfplay.store.table import log
from selfplay.store.table.entries import sealed
from selfplay.store.table.replayed import Added, State
from selfplay.store.table.table import MAX_COMMIT_RETRIES, open_table
from selfplay.store.table.write import MADE_BY, write_file

_KEY = ["slot", "epoch", "number"]
_Key = tuple[str, int, int]


@dataclass(frozen=True)
class Doubled:
    """A data file with episodes that other files hold, too.

    path: below the table. run_id: of the run whose episodes it holds. rows: of them. twice: so many are in files that
    stay. left: indices of the others, which only it holds, ascending.
    """

    path: str
    run_id: str
    rows: int
    left: tuple[int, ...]

    @property
    def twice(self) -> int:
        return self.rows - len(self.left)


def doubled(table: str, state: State) -> tuple[list[Doubled], list[str]]:
    """Which files to take out, or to write again without some rows, so that every episode is there once; by path.

    And what cannot be decided, in sentences: episodes that are there in two forms. Of files that share episodes, the
    larger stays. It is first read in full: a damaged file stands for no other.
    """
    found: list[Doubled] = []
    unlike: list[str] = []
    for run_id in sorted({run for file in state.files.values() if (run := file.partition.get("run_id"))}):
        files = {path: file for path, file in state.files.items() if file.partition.get("run_id") == run_id}
        shared = _sharing(table, files)
        contents = {path: content for path in shared if (content := _contents(table, path)) is not None}
        for path in sorted(contents, key=lambda path: (len(contents[path]), path)):
            mine, others = contents[path], [content for other, content in contents.items() if other != path]
            elsewhere = {key: digest for other in others for key, digest in other.items() if key in mine}
            different = sorted(key for key, digest in elsewhere.items() if digest != mine[key])
            if different:
                slot, epoch, number = different[0]
                unlike.append(
                    f"{run_id}/{slot}/{epoch}/{number} is there more than once, with different content, in {path} "
                    "and another file; move the one that is wrong out of the folder, then repair again"
                )
                continue
            if elsewhere:
                left = tuple(row for row, key in enumerate(mine) if key not in elsewhere)
                found.append(Doubled(path, run_id, len(mine), left))
                contents[path] = {key: digest for key, digest in mine.items() if key not in elsewhere}
    return sorted(found, key=lambda one: one.path), unlike


def take_out(table: str, files: Sequence[Doubled], state: State) -> None:
    """Takes files of one run out of the table, in one commit; what only they hold is written again.

    Raises `CommitFailedError` where the table has changed since `state`.
    """
    (run_id,) = {file.run_id for file in files}
    opened, counter, now = open_table(table), f"{run_id} upkeep", int(time.time() * 1000)
    before, there = opened.version(), set(pa.table(opened.get_add_actions()).column("path").to_pylist())
    if not there.issuperset(file.path for file in files):
        raise CommitFailedError(f"files of run {run_id} were replaced since the repair was planned")
    gone: list[AddAction | RemoveAction] = []
    adds: list[AddAction] = []
    for file in files:
        part: dict[str, str | None] = dict(state.files[file.path].partition)
        gone.append(RemoveAction(file.path, False, now, state.files[file.path].size, part))
        if file.left:
            rest = _rest_of(table, file, state.files[file.path].partition)
            made = write_file(table.rsplit("/", 1)[0], rest.replace_schema_metadata({MADE_BY: b"repair"}))
            adds.append(AddAction(made.path, made.size, part, now, False, made.stats))
    number = (opened.transaction_version(counter) or 0) + 1
    seal = sealed(adds, {counter: number}, [file.path for file in files])
    note = {"repair": "episodes that were there more than once", **seal}
    properties = CommitProperties(note, MAX_COMMIT_RETRIES, [Transaction(counter, number, now)])
    opened.create_write_transaction(
        [*gone, *adds], "append", opened.schema(), PARTITION_BY, commit_properties=properties
    )
    opened.update_incremental()
    log.persist(table, before, opened.version())


def _rest_of(table: str, file: Doubled, partition: dict[str, str]) -> pa.RecordBatch:
    """The episodes that only this file holds."""
    rows = pq.read_table(pa.BufferReader(storage.read(storage.join(table, file.path))), partitioning=None)
    rows = rows.take(list(file.left))
    for name, value in partition.items():
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, EPISODES.field(name).type))
    (batch,) = known(rows).combine_chunks().to_batches()
    return batch


def _sharing(table: str, files: dict[str, Added]) -> set[str]:
    """Those files of a run that hold an episode which another of them holds, too."""
    parts = [keys.append_column("path", pa.array([path] * keys.num_rows)) for path, keys in _keys(table, files)]
    if len(parts) < 2:
        return set()
    everything = pa.concat_tables(parts)
    counted = everything.group_by(_KEY).aggregate([("path", "count")])
    twice = counted.filter(pc.greater(counted.column("path_count"), 1))
    if not twice.num_rows:
        return set()
    return set(everything.join(twice, _KEY, join_type="inner").column("path").to_pylist())


def _keys(table: str, files: dict[str, Added]) -> Iterator[tuple[str, pa.Table]]:
    """Of each file, slot, epoch and number of its episodes; from the log where that says them."""
    kind = pa.schema([("slot", pa.string()), ("epoch", pa.int64()), ("number", pa.int64())])
    for path, file in sorted(files.items()):
        low, high = file.stats.get("minValues", {}), file.stats.get("maxValues", {})
        one = "slot" in low and (low["slot"], low["epoch"]) == (high["slot"], high["epoch"])
        if one and high["number"] - low["number"] + 1 == file.rows:
            numbers = pa.array(range(low["number"], high["number"] + 1), pa.int64())
            same = ([low["slot"]] * file.rows, [low["epoch"]] * file.rows)
            yield path, pa.table([*same, numbers], schema=kind)
            continue
        try:
            yield path, pq.read_table(pa.BufferReader(storage.read(storage.join(table, path))), columns=_KEY).cast(kind)
        except (pa.ArrowException, OSError):
            continue  # damaged, and named when files are looked at


def _contents(table: str, path: str) -> dict[_Key, str] | None:
    """Digests of the episodes of a file, in its order; None where it is missing, not what its name says, or holds one
    episode more than once."""
    try:
        data = storage.read(storage.join(table, path))
        if hashlib.sha256(data).hexdigest() != path.rsplit("/", 1)[-1].removesuffix(".parquet"):
            return None
        rows = pq.read_table(pa.BufferReader(data), columns=[*_KEY, "content_digest"]).to_pydict()
    except (pa.ArrowException, OSError):
        return None
    digests = rows["content_digest"]
    found = dict(zip(zip(*(rows[name] for name in _KEY), strict=True), digests, strict=True))
    return found if len(found) == len(digests) else None
