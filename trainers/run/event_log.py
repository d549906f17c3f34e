"""A run's log for machines: one JSON object a line, in the file that everything but the display is printed to.

Every line has `at` (UTC), `run` and `event`; of blocks also the ids of their first and last episode, so that a line
leads to the corpus and back.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from selfplay.store import Receipt
from selfplay.store.table.write import Block


def note(run: str, event: str, **more: Any) -> None:
    """Writes a line. more: plain values."""
    print(json.dumps({"at": datetime.now(UTC).isoformat(), "run": run, "event": event, **more}), flush=True)


def note_block(block: Block, receipt: Receipt) -> None:
    """A block is in the corpus."""
    where = f"{block.run_id}/{block.slot}/{block.epoch}"
    note(
        block.run_id, "committed", slot=block.slot, epoch=block.epoch, block=block.number, episodes=block.rows,
        first=f"{where}/{block.first}", last=f"{where}/{block.last}", table_version=receipt.table_version,
        status=receipt.status,
    )  # fmt: skip
