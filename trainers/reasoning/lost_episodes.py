"""Which episodes died with a process: those that were asked for and are not in the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow.compute as pc

from selfplay.store.corpus.newest import since
from selfplay.store.table.changes import run_at


def missing(corpus_uri: str, run_id: str, version: int, asked: Mapping[str, int], began: float) -> int:
    """How many dialogues a former driver had asked for, group -> dialogues, that are not in the archive.

    version: of the episodes table, which holds all that the driver could archive. began: none of them is older, seconds
    since 1970.
    """
    left = Counter(asked)
    if left:
        corpus, mine = run_at(corpus_uri, run_id, version)
        for some in since(corpus, mine, began, ["reasoning"]):
            left -= Counter(pc.struct_field(some.column("reasoning").combine_chunks(), "group_id").to_pylist())
    return left.total()
