"""Rows of a corpus as episodes. A row may be a stranger's, and then be none."""

from __future__ import annotations

import pyarrow as pa

from selfplay.episode import Episode, from_batch
from selfplay.store.table.table import first_line

_NO_EPISODE = (TypeError, ValueError, LookupError, AttributeError, OverflowError)


def episodes_of(batch: pa.RecordBatch, steps: bool = True) -> list[Episode | str]:
    """One a row: the episode, or in words why the row is none. steps: of games, see `from_batch`."""
    try:
        return list(from_batch(batch, steps=steps))
    except _NO_EPISODE:
        pass
    found: list[Episode | str] = []
    for row in range(batch.num_rows):
        try:
            found += from_batch(batch.slice(row, 1), steps=steps)
        except _NO_EPISODE as error:
            found.append(f"the row is not an episode: {first_line(error)}")
    return found
