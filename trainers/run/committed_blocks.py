"""Archived episodes on their way to a learner: out of the memory of who made them, or, if that is gone, of the archive.

A player's node may vanish between the archive's receipt and the learner's look. What the receipt speaks of is in the
archive, so the learner reads it there: it learns from the same rows in the same order.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ObjectLostError

from selfplay.episode import EPISODES
from selfplay.store import Receipt
from selfplay.store.table.changes import block_of


def episodes_of(receipt: Receipt, handed: list[Any], corpus: str) -> pa.RecordBatch:
    """The block's episodes, rows of the schema `EPISODES`.

    handed: a list with the ObjectRef of them. Raises `ValueError` where they are not what the receipt is for.
    """
    batch: pa.RecordBatch
    try:
        batch = ray.get(handed[0])
    except ObjectLostError:
        whole = block_of(corpus, receipt.path)
        (batch,) = whole.select(EPISODES.names).combine_chunks().to_batches()
    if receipt.rows != batch.num_rows:
        raise ValueError(f"the receipt is for {receipt.rows} episodes, the batch holds {batch.num_rows}")
    return batch
