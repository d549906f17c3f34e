"""One version of a corpus, as its log has it. The base install is enough: neither torch nor ray nor numba is imported.

Every read goes through the Delta log of one version: what was written but not committed, and what compaction has
replaced, is never seen. Look into the folder yourself and you count twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from selfplay.episode import Episode
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import limits, log
from selfplay.store.table.columns import filled, refuse_other_side, refuse_others
from selfplay.store.table.limits import refuse_bombs, refuse_long_cells
from selfplay.store.table.places import places
from selfplay.store.table.rows import episodes_of
from selfplay.store.table.table import (
    EPISODES_TABLE,
    SIDE_TABLES,
    episodes_uri,
    first_line,
    open_table,
    refuse_path,
    stated_version,
)

if TYPE_CHECKING:
    import pyarrow.dataset as pads

#: Times that a date can be, in whatever zone.
_FIRST_TIME, _LAST_TIME = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
#: Rows that are in memory at once while streaming.
BATCH_ROWS = 1024

Use = TypeVar("Use", bound="Snapshot")


class VersionGone(UserError):
    """An older version that cannot be read any more: a vacuum has deleted its files, or its part of the log."""


def open(uri: str, version: int | datetime | None = None) -> Snapshot:
    """The corpus at `uri`, in its folder `corpus`, or where the run there says; None: as it is now.

    version: its number, or a time with its zone: the newest version that was there then.
    Raises `UserError` where there is none, where the version is not there, and for a newer schema; `VersionGone` where
    the version was vacuumed.
    """
    return open_as(Snapshot, uri, version)


def open_as(use: type[Use], uri: str, version: int | datetime | None = None) -> Use:
    """The same, as a class of snapshots that has more uses."""
    root = storage.normalise(uri)
    for place in places(root):
        table = storage.join(place, EPISODES_TABLE)
        try:
            opened = open_table(table, version)
            refuse_others(opened)
            corpus = use(place, opened)
            if version is not None:
                _refuse_vacuumed(corpus, table)
            return corpus
        except (DeltaError, OSError, OverflowError) as error:  # the last for what can be no version
            if version is not None and (newest := _newest(table)) is not None:
                asked = f"version {version}" if isinstance(version, int) else f"version as of {version.isoformat()}"
                gone = isinstance(version, int) and 0 <= version <= newest
                kind = VersionGone if gone else UserError
                raise kind(f"{uri} has no {asked} (any more); its newest is {newest}") from error
            if not isinstance(error, TableNotFoundError):
                raise UserError(f"the corpus at {uri} cannot be read: {first_line(error)}") from error
    raise UserError(f"there is no corpus at {uri}; give the folder that holds the tables, such as runs/connect_four")


def itself(uri: str) -> str:
    """The place of the corpus that `uri` names, for whoever is about to change it: it, or the folder `corpus` in it.

    A folder may be a stranger's, and lead to a corpus that its user never meant to change: by its file `corpus.uri`,
    or by links in place of its tables. Raises `UserError` for these; then the corpus itself must be named.
    """
    return inside(uri, open(uri).uri)


def inside(uri: str, place: str) -> str:
    """The real place of a corpus, if it is `uri` or the folder `corpus` in it. Raises `UserError` as `itself` does."""
    root = storage.normalise(uri)
    if not storage.is_remote(place):
        place, root = os.path.realpath(place), os.path.realpath(root)
    if place not in (root, storage.join(root, "corpus")):
        raise UserError(f"the corpus of {uri} is at {place}; name that one to change it")
    refuse_links(place)
    return place


def refuse_links(place: str) -> None:
    """Raises `UserError` where a folder inside a local corpus is a link: what is written there lands elsewhere."""
    if storage.is_remote(place):
        return
    for folder, folders, _ in os.walk(place):
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                raise UserError(f"{path} is a link to {os.path.realpath(path)}; a corpus with links is not changed")


def _refuse_vacuumed(corpus: Snapshot, table: str) -> None:
    """Raises `VersionGone` for an older version whose files are gone, other than by damage to what is still needed."""
    newest = open_table(table)
    if newest.version() == corpus.version:
        return
    needed = {path for path in pa.table(newest.get_add_actions()).column("path").to_pylist()}
    there = {entry.uri for entry in storage.entries(table)}
    older = [file["path"] for file in corpus.files() if file["path"] not in needed]
    gone = sum(storage.join(table, path) not in there for path in older)
    if gone:
        raise VersionGone(
            f"version {corpus.version} of {corpus.uri} was vacuumed: {gone:,} of its files are gone; "
            f"the newest is {newest.version()}"
        )


def _newest(table: str) -> int | None:
    try:
        return int(open_table(table).version())
    except (DeltaError, OSError):
        return None


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Turns what Arrow says of a missing or damaged file into a `UserError`. what: the corpus or the file."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        advice = "`selfplay corpus verify` names what is damaged, `selfplay repair` shows what can be done"
        raise UserError(f"{what} cannot be read: {first_line(error)}; {advice}") from error


class Snapshot:
    """One version of a corpus: a consistent snapshot, however much is added or compacted meanwhile."""

    def __init__(self, uri: str, table: DeltaTable) -> None:
        self.uri = uri
        self._table = table
        self._dataset: pads.Dataset | None = None
        self._examined: set[str] = set()
        self._fragments: dict[str, pads.ParquetFileFragment] | None = None

    @property
    def version(self) -> int:
        """Of the episodes table."""
        return int(self._table.version())

    @property
    def schema_version(self) -> int:
        """That the table states: no row of it has a later one."""
        return stated_version(self._table)

    @property
    def dataset(self) -> pads.Dataset:
        """The episodes as a pyarrow dataset: what DuckDB, Polars and others read. No column is left out.

        Columns that the schema has got since this version are there, and null.
        """
        if self._dataset is None:
            place = storage.arrow_filesystem(storage.join(self.uri, EPISODES_TABLE))
            found = self._table.to_pyarrow_dataset(filesystem=place)
            self._dataset = found.replace_schema(filled(found.schema))
        return self._dataset

    def fragments(self, where: pc.Expression | None = None) -> dict[str, pads.ParquetFileFragment]:
        """The data files of this version as pyarrow fragments, by their paths below the episodes table.

        where: leaves out files of which the log says that no row fits.
        """
        if where is not None:
            return self._by_path(self.dataset.get_fragments(filter=where))
        if self._fragments is None:
            self._fragments = self._by_path(self.dataset.get_fragments())
        return self._fragments

    def _by_path(self, fragments: Iterable[pads.ParquetFileFragment]) -> dict[str, pads.ParquetFileFragment]:
        root = storage.join(self.uri, EPISODES_TABLE)
        return {fragment.path.removeprefix(root).lstrip("/"): fragment for fragment in fragments}

    def refuse_bombs(self, where: pc.Expression | None = None) -> None:
        """Raises `UserError` where a file that may hold such rows unpacks to far more than an honest one."""
        fragments = [one for one in self.dataset.get_fragments(where) if one.path not in self._examined]
        refuse_bombs(fragments)
        self._examined.update(one.path for one in fragments)

    def refresh(self) -> Self:
        """The newest version of the same corpus."""
        return open_as(type(self), self.uri)

    def episodes(
        self, where: pc.Expression | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Streams rows in bounded memory. where: such as `pc.field("run_id") == "a"`; columns: default all."""
        with readable(self.uri):
            self.refuse_bombs(where)
            batches = self.dataset.to_batches(
                columns=None if columns is None else list(columns),
                filter=where,
                batch_size=BATCH_ROWS,
                batch_readahead=2,
                fragment_readahead=2,
            )
            for batch in batches:
                batch.validate(full=True)  # texts may be none
                refuse_long_cells(self.uri, batch)
                if batch.num_rows:
                    yield batch

    def records(self, where: pc.Expression | None = None) -> Iterator[Episode]:
        """Streams whole episodes as objects."""
        return (episode for batch in self.episodes(where) for episode in self._records(batch))

    def _records(self, batch: pa.RecordBatch) -> Iterator[Episode]:
        for row, episode in enumerate(episodes_of(batch)):
            if isinstance(episode, str):
                name = str(batch.column("episode_id")[row])
                raise UserError(f"{name!r} in the corpus at {self.uri}: {episode}; see `selfplay corpus verify`")
            yield episode

    def to_arrow(self, where: pc.Expression | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows as one table in memory."""
        with readable(self.uri):
            self.refuse_bombs(where)
            table = self.dataset.to_table(columns=None if columns is None else list(columns), filter=where)
            table.validate(full=True)
            return table

    def count(self, where: pc.Expression | None = None) -> int:
        """Number of episodes; without a filter from the log alone."""
        if where is not None:
            with readable(self.uri):
                self.refuse_bombs(where)
                return int(self.dataset.count_rows(filter=where))
        return sum(file["num_records"] for file in self.files())

    def files(self) -> list[dict[str, Any]]:
        """The data files of this version: path (below the episodes table), size_bytes, num_records, partition."""
        rows = [dict(row) for row in pa.table(self._table.get_add_actions(flatten=True)).to_pylist()]
        needed = ("size_bytes", "num_records", "partition.kind", "partition.run_id")
        for row in rows:
            if row["path"].startswith("/"):
                refuse_path(self.uri, row["path"])
            if any(row.get(name) is None for name in needed) or row["num_records"] < 0:
                silent = f"the log of {self.uri} does not say how many episodes its file {row['path']} holds"
                raise log.explain(episodes_uri(self.uri), UserError(silent))
        return rows

    def get(self, episode_id: str) -> Episode:
        """One episode. Raises `UserError` if it is not in this version."""
        parts = episode_id.split("/")
        if len(parts) != 4 or not all(part.isdecimal() and len(part) < 19 for part in parts[2:]):
            raise UserError(f"{episode_id!r} is no episode id; one looks like run_id/slot/epoch/number")
        run_id, slot, epoch, number = parts
        where = (
            (pc.field("run_id") == run_id)
            & (pc.field("slot") == slot)
            & (pc.field("epoch") == int(epoch))
            & (pc.field("number") == int(number))
        )
        found = list(self.records(where))
        if not found:
            raise UserError(
                f"episode {episode_id} is not in {self.uri} at version {self.version}; "
                '`selfplay corpus query "select episode_id from episodes limit 5"` lists ids'
            )
        return found[0]

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A side table, such as environments, runs, policies (see `SIDE_TABLES`); empty if nothing was added.

        columns: default all. Raises `UserError` where it has not the columns of such a table, and where it holds more
        than one does.
        """
        side, place = SIDE_TABLES[name], storage.join(self.uri, name)
        try:
            table = open_table(place)
        except TableNotFoundError:
            empty = side.schema.empty_table()
            return empty if columns is None else empty.select(list(columns))
        except (DeltaError, OSError) as error:
            raise UserError(f"table {name} of {self.uri} cannot be read: {first_line(error)}") from error
        refuse_other_side(table, name)
        with readable(f"table {name} of {self.uri}"):
            dataset = table.to_pyarrow_dataset(filesystem=storage.arrow_filesystem(place))
            most = limits.MOST_BYTES_OF.get(name, limits.MOST_TABLE_BYTES)
            names = list(columns or dataset.schema.names)
            return limits.read_whole(f"table {name} of {self.uri}", dataset, names, most)

    def rows(self, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a side table as plain values; see `table`. Times that no date can be are null."""
        rows, schema = self.table(name, columns), SIDE_TABLES[name].schema
        for at, column in enumerate(rows.column_names):
            if column in schema.names and pa.types.is_timestamp(schema.field(column).type):
                times = rows.column(at)
                inside = pc.and_(pc.greater(times, _FIRST_TIME), pc.less(times, _LAST_TIME))
                rows = rows.set_column(at, column, pc.if_else(inside, times, None))
        return list(rows.to_pylist())

    def environments(self) -> list[dict[str, Any]]:
        """The environments whose episodes are here; see `SIDE_TABLES`. Without the times of the rows, which may be none
        that a date can be: the table may be a stranger's."""
        names = [name for name in SIDE_TABLES["environments"].schema.names if name != "added_at"]
        return list(self.table("environments", names).to_pylist())
