"""The newest episodes of a corpus, without reading all of them.

Files say when they came into the table, and no episode of a file was sealed later than that. So files are read newest
first, and no further once all that are left are older than what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.store.table.limits import refuse_bombs
from selfplay.store.table.snapshot import Snapshot, readable

#: Files that are read side by side.
_AT_ONCE = 32
#: By so much the clock of a machine that plays may be ahead of the one that commits, microseconds.
_SKEW_US = 300 * 10**6
_KEY = ("started_at", "wall_ms", "slot", "epoch", "number", "n_steps")

Array = np.ndarray[Any, Any]


def latest(corpus: Snapshot, which: pc.Expression, min_positions: int) -> pa.Table:
    """See `Corpus.latest`."""
    rows = corpus.dataset.schema.empty_table().select(list(_KEY))
    chosen, paths = 0, []
    for some, tables, bound in _newest_first(corpus, which, _KEY):
        rows = pa.concat_tables([rows, *tables])
        paths += some
        sealed = np.sort(_sealed_at(rows))[::-1]
        if rows.num_rows:
            steps = np.asarray(rows.column("n_steps"))[_order(rows)]
            chosen = min(rows.num_rows, int(np.searchsorted(np.cumsum(steps[::-1]), min_positions)) + 1)
            if steps.sum() >= min_positions and sealed[chosen - 1] > bound:
                break
    if not rows.num_rows:
        return corpus.dataset.schema.empty_table()
    oldest = pc.min(rows.column("started_at").take(pa.array(_order(rows)[-chosen:])))
    inside = which & (pc.field("started_at") >= oldest)
    found = pa.concat_tables(_read(corpus, paths, inside, corpus.dataset.schema.names))
    return found.take(pa.array(_order(found)[-chosen:]))


def newest_ids(corpus: Snapshot, count: int, where: pc.Expression | None) -> list[str]:
    """See `Corpus.newest`."""
    columns = ("episode_id", "started_at", "wall_ms")
    rows = corpus.dataset.schema.empty_table().select(list(columns))
    for _, tables, bound in _newest_first(corpus, where, columns):
        rows = pa.concat_tables([rows, *tables])
        sealed = _sealed_at(rows)
        order = np.argsort(-sealed, kind="stable")[:count]
        rows = rows.take(pa.array(order))
        if len(order) == count and (not count or sealed[order[-1]] > bound):
            break
    return [str(episode_id) for episode_id in rows.column("episode_id").to_pylist()]


def since(corpus: Snapshot, which: pc.Expression, seconds: float, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some episodes that were begun since a time, a table for each few files; only newer files are opened.

    seconds: since 1970, by any machine's clock: episodes of the five minutes before come, too.
    """
    start = int(seconds * 1e6) - _SKEW_US
    newer = {file["path"] for file in corpus.files() if 1000 * file["modification_time"] >= start}
    paths = [path for path in corpus.fragments(which) if path in newer]
    inside = which & (pc.field("started_at") >= pa.scalar(start, pa.timestamp("us", tz="UTC")))
    for first in range(0, len(paths), _AT_ONCE):
        yield from _read(corpus, paths[first : first + _AT_ONCE], inside, columns)


def _newest_first(
    corpus: Snapshot, which: pc.Expression | None, columns: Sequence[str]
) -> Iterator[tuple[list[str], list[pa.Table], int]]:
    """Files, newest first, some at a time: their paths, their rows, and the time (microseconds) after which no episode
    of any file that follows was sealed."""
    when = {file["path"]: 1000 * file["modification_time"] + _SKEW_US for file in corpus.files()}
    paths = sorted(corpus.fragments(which), key=lambda path: -when[path])
    for first in range(0, len(paths), _AT_ONCE):
        some, rest = paths[first : first + _AT_ONCE], paths[first + _AT_ONCE :]
        yield some, _read(corpus, some, which, columns), when[rest[0]] if rest else 0


def _read(corpus: Snapshot, paths: list[str], which: pc.Expression | None, columns: Sequence[str]) -> list[pa.Table]:
    fragments, schema = corpus.fragments(), corpus.dataset.schema

    def read(path: str) -> pa.Table:
        table = fragments[path].to_table(schema=schema, columns=list(columns), filter=which)
        table.validate(full=True)  # texts may be none
        return table

    with readable(corpus.uri), ThreadPoolExecutor(_AT_ONCE) as pool:
        refuse_bombs(fragments[path] for path in paths)
        return list(pool.map(read, paths))


def _sealed_at(rows: pa.Table) -> Array:
    """`[rows]` int64, microseconds since 1970."""
    started: Array = np.asarray(rows.column("started_at").cast(pa.int64()))
    wall: Array = np.asarray(rows.column("wall_ms"))
    sealed: Array = started + 1000 * wall
    return sealed


def _order(rows: pa.Table) -> Array:
    """`[rows]` int64: indices, oldest first."""
    slots = rows.column("slot").combine_chunks().dictionary_encode()
    ranks = np.argsort(np.argsort(slots.dictionary.to_pylist()))[np.asarray(slots.indices)]
    keys = (np.asarray(rows.column("number")), np.asarray(rows.column("epoch")), ranks, _sealed_at(rows))
    return np.asarray(np.lexsort(keys))
