"""One export: which episodes, in which order, into which folder, and the sidecar that says where each row is from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from selfplay.episode import Episode
from selfplay.store.corpus.query import condition
from selfplay.store.table.rows import episodes_of

if TYPE_CHECKING:
    from selfplay.store.corpus.corpus import Corpus

#: The sidecar: what was exported, and the episode of every row.
SIDECAR, ROWS = "export.json", "export_rows.parquet"
_ROWS = pa.schema([("file", pa.string()), ("row", pa.int64()), ("seat", pa.int32()), ("episode_id", pa.string())])
_HELD_ROWS = 65536

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Format:
    """One format.

    write: fills the job's folder. kinds: of episodes that it can hold. needs: import names of the packages that the
    base install lacks, extra: what brings them. options: name -> what it means, of `--option NAME=VALUE`.
    """

    name: str
    summary: str
    write: Callable[[Job], None]
    kinds: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = "export"
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """What a format is given. It writes into `folder`, and says of every row from which episode it is.

    where: SQL over the columns of `episodes`, or None. options: of this format, as given.
    """

    corpus: Corpus
    format: Format
    folder: Path
    where: str | None
    options: dict[str, str]
    progress: Progress
    rows: int = 0
    episode_ids: set[str] = field(default_factory=set)
    licences: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)
    _held: list[tuple[str, int, int | None, str]] = field(default_factory=list)
    _last: tuple[str, int] = ("", -1)
    _writer: pq.ParquetWriter | None = None

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The episodes to export, by run, slot, epoch and number. Bounded memory. columns: default all."""
        kinds = ", ".join(f"'{kind}'" for kind in self.format.kinds)
        where = f"kind IN ({kinds})" + (f" AND {condition(self.where)}" if self.where else "")
        wanted = None if columns is None else [*columns, *({"licence"} - set(columns))]
        for batch in self.corpus.ordered(where, wanted):
            self.licences.update(batch.column("licence").to_pylist())
            yield batch
            self.progress(batch.num_rows)

    def episodes(self) -> Iterator[Episode]:
        """As `batches`, one object an episode. Rows that are none are left out, with the reason."""
        for batch in self.batches():
            for episode in episodes_of(batch):
                if isinstance(episode, Episode):
                    yield episode
                else:
                    self.leave_out(episode)

    def row(self, file: str, row: int, episode_id: str, seat: int | None = None) -> None:
        """Row `row` (from 0) of `file` (below `folder`) is from this episode (and tells of this seat's part).

        A row that several episodes made is told once for each, one after the other.
        """
        self._held.append((file, row, seat, episode_id))
        self.rows += self._last != (file, row)
        self._last = (file, row)
        self.episode_ids.add(episode_id)
        if len(self._held) >= _HELD_ROWS:
            self._flush()

    def leave_out(self, reason: str) -> None:
        """Counts an episode that the format cannot hold; the user is told, and the sidecar says it."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def close(self) -> None:
        """Completes the table of rows."""
        self._flush()
        assert self._writer is not None
        self._writer.close()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.folder / ROWS, _ROWS, compression="zstd")
        names = _ROWS.names
        held = [dict(zip(names, row, strict=True)) for row in self._held]
        self._writer.write_table(pa.Table.from_pylist(held, _ROWS))
        self._held.clear()
