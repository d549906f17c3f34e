"""Blocks that are submitted to the committer again: are they what was committed under their numbers?

A committer that died before it could acknowledge blocks is given them again, and answers that they are there already. A
block of other episodes whose number is taken is not there, and would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfplay.io import storage
from selfplay.store.table import log
from selfplay.store.table.history import lost_some
from selfplay.store.table.snapshot import open
from selfplay.store.table.table import episodes_uri
from selfplay.store.table.write import Block

_NAMES = ["episode_id", "content_digest"]


class Taken(ValueError):
    """A block whose number belongs to a block with other episodes, which was committed before."""


def refuse_others(corpus_uri: str, paths: Collection[str], blocks: Sequence[Block]) -> None:
    """Raises `Taken` for a block that is not what was committed under its number. paths: files of the newest version.

    A file is named by its content. Where compaction has replaced it, its episodes are sought; where its run was deleted
    since, or the block's own file was vacuumed, nothing can be said any more, and nothing is refused.
    """
    for block in blocks:
        if block.path in paths:
            continue
        file = storage.join(episodes_uri(corpus_uri), block.path)
        if not storage.exists(file):
            continue
        mine = pq.read_table(pa.BufferReader(storage.read(file)), columns=_NAMES, partitioning=None)
        corpus = open(corpus_uri)
        where = (pc.field("run_id") == block.run_id) & (pc.field("slot") == block.slot)
        where &= (pc.field("epoch") == block.epoch) & (pc.field("number") >= block.first)
        there = corpus.to_arrow(where & (pc.field("number") <= block.last), _NAMES)
        wanted, found = (set(zip(*table.to_pydict().values(), strict=True)) for table in (mine, there))
        if wanted <= found:
            continue
        table = episodes_uri(corpus_uri)
        if found or block.run_id not in lost_some(table, range(log.given_back(table) + 1, corpus.version + 1)):
            raise Taken(
                f"block {block.number} of slot {block.slot}, epoch {block.epoch}, was committed with other episodes "
                f"than {block.path} holds; these were not archived"
            )
