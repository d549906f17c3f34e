"""A run's log: what happened to it, by `logging`, in the file that everything but the display is printed to.

Each event is one JSON object a line, with `at` (UTC), `level`, `run` and `event`; of blocks also the ids of their first
and last episode, so that a line leads to the corpus and back. SELFPLAY_LOG_FORMAT=text writes words instead, and
SELFPLAY_LOG_LEVEL=WARNING only what went wrong. The logger is "selfplay.run": an operator may add handlers of his own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from selfplay.errors import UserError
from selfplay.store import Receipt
from selfplay.store.table.write import Block

LOGGER = logging.getLogger("selfplay.run")
#: Events that are not in the order of things.
_WARNINGS = ("died", "left out", "damaged", "repaired", "not compacted")
_FORMATS = ("json", "text")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        run, more = getattr(record, "run", ""), getattr(record, "more", {})
        if os.environ.get("SELFPLAY_LOG_FORMAT", "json") == "json":
            about = {"at": at, "level": record.levelname, "run": run, "event": record.getMessage()}
            return json.dumps({**about, **more})
        words = "".join(f" {name}={value}" for name, value in more.items())
        return f"{at} {record.levelname} {run}: {record.getMessage()}{words}"


class _Stdout(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stdout` is by then: it is redirected when a run begins."""

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


def configure() -> None:
    """Reads the two variables. Raises `UserError` for a level or a format that there is not."""
    level = os.environ.get("SELFPLAY_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise UserError(f"SELFPLAY_LOG_LEVEL={level} is not a level; use DEBUG, INFO, WARNING or ERROR")
    form = os.environ.get("SELFPLAY_LOG_FORMAT", "json")
    if form not in _FORMATS:
        raise UserError(f"SELFPLAY_LOG_FORMAT={form} is not a format; use {' or '.join(_FORMATS)}")
    LOGGER.setLevel(level)


def note(run: str, event: str, **more: Any) -> None:
    """Logs an event. more: plain values."""
    if not any(isinstance(handler, _Stdout) for handler in LOGGER.handlers):
        handler = _Stdout()
        handler.setFormatter(_Lines())
        LOGGER.addHandler(handler)
        LOGGER.propagate = False
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    LOGGER.log(logging.WARNING if event in _WARNINGS else logging.INFO, event, extra={"run": run, "more": more})


def note_block(block: Block, receipt: Receipt) -> None:
    """A block is in the corpus."""
    where = f"{block.run_id}/{block.slot}/{block.epoch}"
    note(
        block.run_id, "committed", slot=block.slot, epoch=block.epoch, block=block.number, episodes=block.rows,
        first=f"{where}/{block.first}", last=f"{where}/{block.last}", table_version=receipt.table_version,
        status=receipt.status,
    )  # fmt: skip
