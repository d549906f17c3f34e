"""The table `deletions`: which episodes were taken out of a corpus, by what, and why.

An entry is written before its episodes are taken out. So a cut between the two leaves an entry without effect, never
episodes that are missing and nothing that says why.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from selfplay.store.table.chain import chains_of
from selfplay.store.table.snapshot import Snapshot
from selfplay.store.table.table import append


class Moved(Exception):
    """Files of a version were replaced and deleted while they were read; the newest version must be looked at."""


def enter(corpus: Snapshot, run_id: str, paths: Collection[str], reason: str, command: str) -> int:
    """Enters the episodes of some files of a run, that are about to be taken out; how many those are.

    Raises `Moved`. Of a damaged file nobody knows any more which they are, and the entry says so.
    """
    writers: list[dict[str, Any]] = []
    chains = chains_of(corpus, paths=set(paths))
    if chains.unread and corpus.refresh().version > corpus.version:
        raise Moved
    for (_, slot, epoch), spans in sorted(chains.spans.items()):
        writers += [
            {"slot": slot, "epoch": epoch, "first": span.first, "last": span.last, "head": span.head}
            for span in spans
        ]  # fmt: skip
    episodes = sum(int(file["num_records"]) for file in corpus.files() if file["path"] in paths)
    enter_rows(corpus.uri, run_id, corpus.version, episodes, None if chains.unread else writers, reason, command)
    return episodes


def enter_rows(
    corpus_uri: str,
    run_id: str,
    table_version: int,
    episodes: int,
    writers: list[dict[str, Any]] | None,
    reason: str,
    command: str,
) -> None:
    """The row itself. table_version: that holds the episodes. writers: as the table has them; None: not known."""
    row = {
        "run_id": run_id,
        "table_version": table_version,
        "episodes": episodes,
        "writers": writers,
        "reason": reason,
        "command": command,
        "deleted_at": datetime.now(UTC),
    }
    append(corpus_uri, "deletions", [row])
