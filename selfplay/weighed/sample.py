"""Which episodes are looked at: all, or as many of one version of the policies as of another, as far as that goes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from selfplay.store.table.limits import footer, refuse_bomb, refuse_long_cells
from selfplay.store.table.snapshot import Snapshot

_ROWS = 256


def drawn(
    corpus: Snapshot, sample: int | None, rng: np.random.Generator, on_hand: Collection[str]
) -> dict[str, list[int]]:
    """path of a file -> rows, ascending. on_hand: digests of weights; a sample is of episodes in which these played."""
    by_version: dict[str, list[tuple[str, int]]] = {}
    everything: dict[str, list[int]] = {}
    for path, fragment in sorted(corpus.fragments().items()):
        refuse_bomb(path, footer(fragment))
        if sample is None:
            everything[path] = list(range(footer(fragment).num_rows))
            continue
        spans = fragment.to_table(columns=["policy_spans"], schema=corpus.dataset.schema).column("policy_spans")
        for row, some in enumerate(spans.to_pylist()):
            for digest in {span["digest"] for span in some or ()}.intersection(on_hand):
                by_version.setdefault(digest, []).append((path, row))
    if sample is None:
        return everything
    queues = [[places[i] for i in rng.permutation(len(places))] for _, places in sorted(by_version.items())]
    chosen: set[tuple[str, int]] = set()
    while len(chosen) < sample and any(queues):
        for queue in queues:
            while queue and (place := queue.pop()) in chosen:
                pass
            if queue or place not in chosen:
                chosen.add(place)
            if len(chosen) == sample:
                break
        queues = [queue for queue in queues if queue]
    out: dict[str, list[int]] = {}
    for path, row in sorted(chosen):
        out.setdefault(path, []).append(row)
    return out


def batches(corpus: Snapshot, places: Mapping[str, Sequence[int]]) -> Iterator[pa.RecordBatch]:
    """The rows at `places`, all columns, in bounded memory. Raises `UserError` where a file unpacks to far too much."""
    for path, rows in places.items():
        fragment, before = corpus.fragments()[path], 0
        refuse_bomb(path, footer(fragment))
        for group in range(fragment.num_row_groups):
            count = fragment.row_groups[group].num_rows
            mine = [row - before for row in rows if before <= row < before + count]
            before += count
            if mine:
                read = fragment.subset(row_group_ids=[group]).to_table(schema=corpus.dataset.schema)
                for one in read.take(mine).combine_chunks().to_batches(_ROWS):
                    refuse_long_cells(path, one)
                    yield one
