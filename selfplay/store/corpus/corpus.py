"""A corpus for its readers: one version of it, and all ways to use that, as rows, SQL, batches for torch, or with Ray.

What needs more than the base install is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.store.corpus import newest
from selfplay.store.corpus.query import condition, connect, told
from selfplay.store.table.snapshot import BATCH_ROWS, Snapshot, open_as

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import ray

    from selfplay.store.corpus.torch_dataset import Feed


def open(uri: str, version: int | datetime | None = None) -> Corpus:
    """The corpus at `uri`, in its folder `corpus`, or where the run there says; None: as it is now.

    version: its number, or a time with its zone: the newest version that was there then.
    Raises `UserError` where there is none, where the version is not there, and for a newer schema; `VersionGone` where
    the version was vacuumed.
    """
    return open_as(Corpus, uri, version)


class Corpus(Snapshot):
    """One version of a corpus: a consistent snapshot, however much is added or compacted meanwhile."""

    def ordered(self, where: str = "true", columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams rows by run, slot, epoch and number, however the files lie. where: SQL over `episodes`.

        In memory at once: the keys of all rows, and one part of the rows.
        """
        key = ["kind", "run_id", "slot", "epoch", "number"]
        with told():
            asked = f"SELECT {', '.join(key)} FROM episodes WHERE {condition(where)}"
            keys = self.to_duckdb().sql(f"{asked} ORDER BY run_id, slot, epoch, number").to_arrow_table()
        names = None if columns is None else list(dict.fromkeys([*columns, "number"]))
        for part in _parts(keys):
            kind, run_id, slot, epoch, first = (part.column(name)[0].as_py() for name in key)
            numbers = part.column("number").combine_chunks()
            inside = (pc.field("number") >= first) & (pc.field("number") <= numbers[-1].as_py())
            of = (pc.field("kind") == kind) & (pc.field("run_id") == run_id) & (pc.field("slot") == slot)
            inside &= pc.field("number").isin(numbers)
            rows = self.to_arrow(of & (pc.field("epoch") == epoch) & inside, names)
            index = pc.index_in(numbers, rows.column("number").combine_chunks())
            if index.null_count or rows.num_rows < len(numbers):
                raise UserError(
                    f"the corpus at {self.uri} has episodes of the writer {slot!r} of run {run_id!r} that its own "
                    "statistics hide; export it without them (--where)"
                )
            found = rows.take(index).combine_chunks().select(columns or rows.column_names)
            yield from found.to_batches()

    def to_duckdb(self, unsafe: bool = False) -> duckdb.DuckDBPyConnection:
        """A connection with views of the episodes, their steps, candidates, seats and verdicts, and all side tables.

        unsafe: let SQL read and write files, use the network and change settings; see
        `selfplay.store.corpus.query.connect`.
        """
        return connect(self, unsafe)

    def steps(self, where: str = "true", columns: Sequence[str] = ("*",)) -> Iterator[pa.RecordBatch]:
        """Streams one row a step. where: SQL over the columns of the view `steps`, such as "seat = 0 and surprise > 1".

        Values are in the game's utility units, from the point of view of the seat to act.
        """
        names = ", ".join("*" if name == "*" else f'"{name}"' for name in columns)
        with told():
            connection = self.to_duckdb()
            asked = f"SELECT {names} FROM steps WHERE {condition(where)}"
            yield from connection.sql(asked).to_arrow_reader(BATCH_ROWS)

    def to_polars(self) -> pl.LazyFrame:
        """The episodes as a lazy frame; filters and columns reach the files. Raises `UserError` without polars."""
        _need("polars", "to_polars")
        import polars

        return polars.scan_pyarrow_dataset(self.dataset)

    def to_torch(self, **options: Any) -> Feed:
        """The corpus as a torch IterableDataset; options as of `torch_dataset.Feed`. Needs torch."""
        _need("torch", "to_torch")
        from selfplay.store.corpus.torch_dataset import Feed

        return Feed(self, **options)

    def to_ray(self, where: pc.Expression | None = None, columns: Sequence[str] | None = None) -> ray.data.Dataset:
        """The episodes of this version as a Ray Dataset that reads where it runs. Needs ray."""
        _need("ray", "to_ray")
        from selfplay.store.corpus.ray_dataset import dataset_of

        return dataset_of(self, where, columns)

    def newest(self, count: int = 1, where: pc.Expression | None = None) -> list[str]:
        """Ids of the episodes sealed last, newest first."""
        return newest.newest_ids(self, count, where)

    def latest(self, which: pc.Expression, min_positions: int) -> pa.Table:
        """The newest of some episodes with `min_positions` steps together (all, if there are fewer), oldest first.

        which: such as those of a run. Order: by the time of sealing, then slot, epoch, number. It is the order in
        which they were committed up to the size of a block, and other than that one it survives compaction.
        """
        return newest.latest(self, which, min_positions)


def _need(package: str, asker: str) -> None:
    """Raises `UserError` where an optional package is not there."""
    if find_spec(package) is None:
        extra = "factory" if package in ("ray", "torch") else "export"
        raise UserError(f"{asker} needs {package}: {how_to_install(extra)}")


def _parts(keys: pa.Table) -> Iterator[pa.Table]:
    """Keys in order (columns run_id, slot, epoch, number), cut where the writer changes and every so many rows."""
    if not keys.num_rows:
        return
    writer = [keys.column(name).combine_chunks() for name in ("run_id", "slot", "epoch")]
    changes = np.zeros(keys.num_rows, bool)
    for column in writer:
        changes[1:] |= np.asarray(pc.not_equal(column[1:], column[:-1]))
    starts = [0, *np.flatnonzero(changes).tolist(), keys.num_rows]
    for start, end in pairwise(starts):
        for first in range(start, end, BATCH_ROWS):
            yield keys.slice(first, min(BATCH_ROWS, end - first))
