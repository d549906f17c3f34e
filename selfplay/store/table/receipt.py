"""What a committer answers, for those who wait for it and those who keep account of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Receipt:
    """The archive's word that a block is in the corpus.

    status: "committed" by this call, or "already" there. table_version: of the episodes table, that holds the block.
    rows, steps: of the block.
    """

    slot: str
    epoch: int
    number: int
    path: str
    status: str
    table_version: int
    rows: int
    steps: int
