"""What changed between versions of a corpus: for those who compare two, and for those who follow a growing one.

Compaction rewrites files and changes no episode. So a difference is taken by episode id, and only of files that one
version has and the other has not; who follows reads, of each commit, the files that brought something new; and what a
run had archived at a version can be told after a vacuum, too: the log knows every block, and episodes have numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table.history import brought, ends_of, had_at, lost_some, run_of
from selfplay.store.table.limits import refuse_bomb, refuse_bombs
from selfplay.store.table.snapshot import Snapshot, VersionGone, open
from selfplay.store.table.table import EPISODES_TABLE, episodes_uri

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Difference:
    """Episodes that only one of two versions has, by id, ascending."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def difference(uri: str, before: int, after: int) -> Difference:
    """Which episodes version `after` has and version `before` has not, and the other way round."""
    old, new = open(uri, before), open(uri, after)
    paths = {file["path"] for file in old.files()}, {file["path"] for file in new.files()}
    was, now = _ids(old, paths[0] - paths[1]), _ids(new, paths[1] - paths[0])
    return Difference(tuple(sorted(now - was)), tuple(sorted(was - now)))


def _ids(corpus: Snapshot, paths: set[str]) -> set[str]:
    found: set[str] = set()
    folder = storage.arrow_filesystem(storage.join(corpus.uri, EPISODES_TABLE))
    for path in sorted(paths):
        try:
            refuse_bomb(path, pq.read_metadata(path, filesystem=folder))
            column = pq.read_table(path, columns=["episode_id"], filesystem=folder, partitioning=None)
        except FileNotFoundError:
            raise UserError(f"version {corpus.version} of {corpus.uri} was vacuumed: its file {path} is gone") from None
        found.update(column.column(0).to_pylist())
    return found


@dataclass(frozen=True)
class News:
    """Episodes that a commit brought. version: of the table; whoever has taken the news goes on after it."""

    version: int
    episodes: pa.RecordBatch


def follow(
    uri: str, after: int, columns: Sequence[str] | None = None, poll_s: float = 1.0, until: float | None = None
) -> Iterator[News]:
    """The episodes of all commits later than version `after`, each once, as they come; for ever.

    Go on from the last version whose news you have taken in full: nothing is repeated, nothing is left out, whatever
    was compacted or vacuumed meanwhile. What was deleted since does not come, also where its run goes on. until: stops
    at this `time.monotonic()`, once everything that is there has been told; None: never.

    Raises `UserError` where the log no longer reaches back to `after`.
    """
    table = episodes_uri(open(uri).uri)
    version = after
    while True:
        newest = open(uri)
        there = _There(table, newest, version) if version < newest.version else None
        while there is not None and version < newest.version:
            version += 1
            for block in brought(table, version):
                for batch in there.read(block, columns):
                    yield News(version, batch)
        if until is not None and time.monotonic() >= until:
            return
        time.sleep(poll_s)


def run_at(uri: str, run_id: str, version: int) -> tuple[Snapshot, pc.Expression]:
    """The episodes that a run had at a version of the corpus: where to read them, and which they are there.

    Where the version was vacuumed, they are read from the newest; of a run that was deleted since there are none.
    """
    mine = pc.field("run_id") == run_id
    try:
        return open(uri, version), mine
    except VersionGone:
        newest = open(uri)
    last = had_at(newest.uri, version, run_id).get(run_id, {})
    which = [
        (pc.field("slot") == slot) & (pc.field("epoch") == epoch) & (pc.field("number") <= number)
        for (slot, epoch), number in sorted(last.items())
    ]
    return newest, mine & _any(which)


def _any(which: list[pc.Expression]) -> pc.Expression:
    """Whether one of them holds; as a shallow tree, as there may be thousands."""
    if len(which) < 3:
        return reduce(lambda one, other: one | other, which, pc.scalar(False))
    half = len(which) // 2
    return _any(which[:half]) | _any(which[half:])


def block_of(uri: str, path: str) -> pa.Table:
    """The episodes of a block by its path below the episodes table, also where compaction has replaced it."""
    corpus = open(uri)
    return _file(episodes_uri(corpus.uri), path, corpus.dataset.schema).to_table()


class _There:
    """What the newest version still has of the blocks that were committed after version `after`."""

    def __init__(self, table: str, newest: Snapshot, after: int) -> None:
        self._table, self._newest, self._after = table, newest, after
        files = newest.files()
        self._paths = {file["path"] for file in files}
        self._runs = {file["partition.run_id"] for file in files}

    @cached_property
    def _deleted(self) -> set[str | None]:
        """Runs of which episodes were taken out since. Looked for only where a block's file was replaced or deleted."""
        return lost_some(self._table, range(self._after + 1, self._newest.version + 1))

    def read(self, add: dict[str, Any], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The episodes of a block: from its own file, or from wherever compaction has put them."""
        schema, run = self._newest.dataset.schema, run_of(add)
        names = list(schema.names if columns is None else columns)
        if run not in self._runs:
            return
        whole = add["path"] in self._paths or run not in self._deleted
        if whole and storage.exists(storage.join(self._table, add["path"])):
            source = _file(self._table, add["path"], schema)
            refuse_bombs(source.get_fragments())
            yield from (b for b in source.to_batches(columns=names, batch_size=_BATCH_ROWS) if b.num_rows)
            return
        low, high = ends_of(add)
        where = (
            (pc.field("run_id") == run)
            & (pc.field("slot") == low["slot"])
            & (pc.field("epoch") == low["epoch"])
            & (pc.field("number") >= low["number"])
            & (pc.field("number") <= high["number"])
        )
        yield from self._newest.episodes(where, names)


def _file(table: str, path: str, schema: pa.Schema) -> pads.Dataset:
    kind = pa.schema([schema.field("kind"), schema.field("run_id")])
    folder = storage.arrow_filesystem(table)
    return pads.dataset([path], schema, "parquet", folder, partitioning=pads.partitioning(kind, flavor="hive"))
