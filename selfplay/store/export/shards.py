"""Rows in Parquet files of fixed sizes, where `datasets.load_dataset` looks for a split named train."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 512
FILE_ROWS = 128 * GROUP_ROWS


class Shards:
    """`data/train-00000.parquet`, … below `folder`. In memory at once: one row group."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._rows = 0
        self._held: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        (self._folder / "data").mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, row: dict[str, Any]) -> tuple[str, int]:
        """The file and the row in it that this becomes."""
        shard, at = divmod(self._rows, FILE_ROWS)
        name = f"data/train-{shard:05d}.parquet"
        if not at:
            if self._writer is not None:
                self._writer.close()
            self._writer = pq.ParquetWriter(self._folder / name, self._schema, compression="zstd")
        self._held.append(row)
        self._rows += 1
        if len(self._held) == GROUP_ROWS:
            self._flush()
        return name, at

    def _flush(self) -> None:
        if self._held and self._writer is not None:
            self._writer.write_table(pa.Table.from_pylist(self._held, self._schema))
        self._held.clear()
