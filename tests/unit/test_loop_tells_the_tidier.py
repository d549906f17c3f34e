"""Every block that the loop of games has archived is counted, once, by who keeps the number of files small."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import ray

from trainers.alphazero import loop as alphazero
from trainers.alphazero.loop import Loop


def test_every_archived_block_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(ray, "get", lambda value: value)
    loop = object.__new__(Loop)
    loop.written, loop.lessons, loop.lesson_rows, loop.archived = alphazero.deque(), [], 0, -1
    loop.saved = time.monotonic()
    loop.watch = SimpleNamespace(archived=lambda report: None)  # type: ignore[assignment]
    told: list[object] = []
    tidier = SimpleNamespace(archived=counted.append)
    loop.crew = SimpleNamespace(tidier=tidier, archived=lambda block, _: told.append(block))  # type: ignore[assignment]
    report = SimpleNamespace(block=object(), archived_decisions=5)
    for blocks, version in ((3, 7), (1, 8)):
        receipts = [SimpleNamespace(table_version=version)] * blocks
        loop.committing = (receipts, [(report, object())] * blocks)
        loop.committed()
    assert counted == [3, 1] and told == [report.block] * 4
    assert loop.archived == 8 and loop.lesson_rows == 20 and len(loop.lessons) == 4
