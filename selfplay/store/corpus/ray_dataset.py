"""A corpus as a Ray Dataset: each task reads a part of one data file, through the version that was opened."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from selfplay.store.table.snapshot import Snapshot, open

if TYPE_CHECKING:
    from ray.data import Dataset


def dataset_of(corpus: Snapshot, where: pc.Expression | None, columns: Sequence[str] | None) -> Dataset:
    """The episodes as a Ray Dataset, one row an episode, in Arrow. Ray must be running or may start itself."""
    uri, version = corpus.uri, corpus.version
    names = list(columns) if columns is not None else corpus.dataset.schema.names
    if not corpus.files():
        return ray.data.from_arrow(corpus.dataset.schema.empty_table().select(names))
    parts = [
        {"path": path, "group": group}
        for path, fragment in sorted(corpus.fragments().items())
        for group in range(fragment.num_row_groups)
    ]

    def read(batch: dict[str, Any]) -> pa.Table:
        opened = _opened(uri, version)
        tables = []
        for path, group in zip(batch["path"], batch["group"], strict=True):
            fragment = opened.fragments()[str(path)].subset(row_group_ids=[int(group)])
            tables.append(fragment.to_table(schema=opened.dataset.schema, columns=names, filter=where))
        return pa.concat_tables(tables)

    return ray.data.from_items(parts).map_batches(read, batch_size=1, batch_format="numpy")


@lru_cache(maxsize=4)
def _opened(uri: str, version: int) -> Snapshot:
    return open(uri, version)
