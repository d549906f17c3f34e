"""Writing episodes as immutable Parquet: files named by their content, not yet part of the corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfplay.episode import Episode, to_batch
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.io import storage
from selfplay.store.table.counts import Counts, of_batch
from selfplay.store.table.table import STATISTICS, check_name, episodes_uri

#: Says in a file's metadata that compaction wrote it.
MADE_BY = b"selfplay.made_by"
#: Steps in a row group, about: what a reader of a large file must hold at once. Smaller ones cost room.
GROUP_STEPS = 2**15


@dataclass(frozen=True)
class Block:
    """A file of episodes of one kind, run, slot and epoch, written but not yet committed. Small; travels freely.

    number: of the block within slot and epoch, from 0, without gaps. path: below the episodes table.
    size: bytes. sha256: of the file, hex. stats: Delta statistics, JSON. first, last: episode numbers, inclusive.
    rows: episodes. steps: the sum of their `n_steps`. counts: what it adds to the counters of its run. aborted: how
    many episodes were. head: content digest of the last episode, to which the writer's next is linked.
    """

    slot: str
    epoch: int
    number: int
    kind: str
    run_id: str
    path: str
    size: int
    sha256: str
    stats: str
    first: int
    last: int
    rows: int
    steps: int
    counts: Counts
    aborted: int
    head: str


class Writer:
    """Seals the episodes of one writer, each linked to the one before, and writes them, block after block.

    epoch, first_block: as the committer has registered it. It begins a chain: a writer that dies takes the digest of
    its last episode with it, and its successor has an epoch of its own.
    """

    def __init__(self, corpus_uri: str, slot: str, epoch: int, first_block: int = 0) -> None:
        self.corpus_uri, self.slot, self.epoch, self.next_block = corpus_uri, slot, epoch, first_block
        self.head: str | None = None

    def write(self, episodes: Sequence[Episode]) -> tuple[Block, pa.RecordBatch]:
        """The next block, and its rows. episodes: one or more, in the order of their numbers, without gaps."""
        batch = to_batch(episodes, self.head)
        block = write_block(self.corpus_uri, batch, self.slot, self.epoch, self.next_block)
        self.head, self.next_block = block.head, self.next_block + 1
        return block, batch


def write_block(corpus_uri: str, batch: pa.RecordBatch, slot: str, epoch: int, number: int) -> Block:
    """Writes one batch of `to_batch` and returns what the committer must know. Writing it again changes nothing.

    batch: not empty, all rows of one kind, run, slot and epoch. number: of the block within slot and epoch.
    """
    if (_only(batch, "slot"), _only(batch, "epoch")) != (slot, epoch):
        raise ValueError(f"the episodes of a block must all be of slot {slot} and epoch {epoch}")
    storage.fault("before_write")
    file = write_file(corpus_uri, batch)
    storage.fault("after_write")
    numbers = pc.min_max(batch.column("number")).as_py()
    return Block(
        slot=slot,
        epoch=epoch,
        number=number,
        kind=file.kind,
        run_id=file.run_id,
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        stats=file.stats,
        first=numbers["min"],
        last=numbers["max"],
        rows=batch.num_rows,
        steps=pc.sum(batch.column("n_steps")).as_py(),
        counts=of_batch(batch),
        aborted=pc.sum(pc.equal(batch.column("status"), "aborted")).as_py(),
        head=batch.column("content_digest")[-1].as_py(),
    )


@dataclass(frozen=True)
class File:
    """A file of episodes of one kind and run, written but not yet committed; fields as in `Block`."""

    kind: str
    run_id: str
    path: str
    size: int
    sha256: str
    stats: str


def write_file(corpus_uri: str, batch: pa.RecordBatch) -> File:
    """Writes episodes of one kind and run to a file named by its content. Writing it again changes nothing."""
    kind, run_id = _only(batch, "kind"), check_name("run id", _only(batch, "run_id"))
    data = encode(batch)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"kind={kind}/run_id={run_id}/{sha256}.parquet"
    place = storage.join(episodes_uri(corpus_uri), path)
    if not storage.create(place, data, durable=True) and storage.size(place) != len(data):
        storage.write(place, data, durable=True)  # it was damaged
    return File(kind, run_id, path, len(data), sha256, stats_of(batch))


def encode(batch: pa.RecordBatch) -> memoryview:
    """The bytes of the Parquet file: all columns but those in its path (Delta keeps these in the log)."""
    table = pa.Table.from_batches([batch]).drop_columns(PARTITION_BY)
    mean_steps = max(1.0, (pc.sum(batch.column("n_steps")).as_py() or 0) / max(1, batch.num_rows))
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(64, int(GROUP_STEPS / mean_steps)),
        compression="zstd",
        compression_level=3,
        use_dictionary=_DICTIONARY,
        column_encoding=_ENCODING,
        write_statistics=["episode_id", *STATISTICS, "started_at", "trainable", "env_id", "n_steps"],
    )
    return memoryview(sink.getvalue())


def _leaves(kind: pa.DataType, path: str) -> list[tuple[str, pa.DataType]]:
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(field.type, f"{path}.{field.name}")]
    if pa.types.is_list(kind):
        return _leaves(kind.value_type, f"{path}.list.element")
    return [(path, kind)]


_COLUMNS = [leaf for field in EPISODES if field.name not in PARTITION_BY for leaf in _leaves(field.type, field.name)]
#: Numbers without few distinct values are smaller, and quicker to write, with their bytes split into streams.
_SPLIT = (pa.float32(), pa.float64(), pa.int16())
_ENCODING = {path: "BYTE_STREAM_SPLIT" for path, kind in _COLUMNS if kind in _SPLIT}
_DICTIONARY = [path for path, kind in _COLUMNS if path not in _ENCODING and not pa.types.is_boolean(kind)]


def _only(batch: pa.RecordBatch, column: str) -> Any:
    values = pc.unique(batch.column(column)).to_pylist()
    if len(values) != 1:
        raise ValueError(f"a block needs episodes of exactly one {column}, found {values}")
    return values[0]


def stats_of(batch: pa.RecordBatch | pa.Table) -> str:
    """The Delta statistics of a file with these rows, JSON."""
    ends = {name: pc.min_max(batch.column(name)).as_py() for name in STATISTICS}
    return json.dumps(
        {
            "numRecords": batch.num_rows,
            "minValues": {name: end["min"] for name, end in ends.items()},
            "maxValues": {name: end["max"] for name, end in ends.items()},
            "nullCount": {name: batch.column(name).null_count for name in STATISTICS},
        }
    )
