"""Gives back the old part of the log of the episodes table: an entry for each commit, for ever, is much in years.

What stays readable: every version of the last days, every released version, and every version from which a learner
filled its window (table `uses`). Of each old one that stays, the checkpoint before it and the entries from there on are
kept, about a hundred. What keeps every episode in the table exactly once is in each checkpoint, too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from selfplay import storage
from selfplay.store import history, log
from selfplay.store.read import Corpus, itself, open
from selfplay.store.table import episodes_uri


@dataclass(frozen=True)
class Trimmed:
    """files: of the log, deleted or to be deleted. bytes: their size. oldest: all versions from this one on can be
    read. kept: those before it that can be read, too."""

    files: int
    bytes: int
    oldest: int
    kept: tuple[int, ...]


def trim_log(uri: str, days: float, dry_run: bool = True) -> Trimmed:
    """Deletes entries of the log that only versions need that are older than `days` and neither released nor used.

    Safe beside writers and readers of what stays, and to interrupt.
    """
    corpus = open(itself(uri))
    log.refuse_any_damage(episodes_uri(corpus.uri))  # what is deleted may be what it could be repaired from
    files: dict[int, list[storage.Entry]] = defaultdict(list)
    for entry in storage.entries(storage.join(episodes_uri(corpus.uri), log.FOLDER)):
        stem = entry.uri.rsplit("/", 1)[1].split(".")[0]
        if len(stem) == 20 and stem.isdigit():
            files[int(stem)].append(entry)
    checkpoints = sorted(v for v, found in files.items() if any(".checkpoint" in entry.uri for entry in found))
    before = storage.server_time(episodes_uri(corpus.uri)) - days * 86400
    old = [v for v in checkpoints if all(entry.modified < before for entry in files[v])]
    if not old:
        return Trimmed(0, 0, min(files), ())
    oldest, used = old[-1], _used(corpus)
    pinned = sorted({version for version in (*_released(corpus), *used) if version < oldest})
    needed: set[int] = set()
    for version in pinned:
        needed |= set(range(max((v for v in checkpoints if v <= version), default=0), version + 1))
    gone = [version for version in sorted(files) if version < oldest and version not in needed]
    entries = [entry for version in gone for entry in files[version]]
    if entries and not dry_run:
        there = {file["partition.run_id"] for file in corpus.files()}
        history.write_down(corpus.uri, {v: used[v] for v in pinned if v in used}, oldest, there)
        for entry in entries:
            storage.delete(entry.uri)
    return Trimmed(len(entries), sum(entry.size for entry in entries), oldest, tuple(pinned))


def _released(corpus: Corpus) -> set[int]:
    return {int(version) for version in corpus.table("releases").column("table_version").to_pylist()}


def _used(corpus: Corpus) -> dict[int, set[str]]:
    """Versions of the episodes table from which learners have filled their windows, with the runs of these."""
    found: dict[int, set[str]] = defaultdict(set)
    for row in corpus.table("uses").select(["run_id", "events"]).to_pylist():
        for event in row["events"] or ():
            if event["what"] == "refill" and event["table_version"] is not None:
                found[event["table_version"]].add(row["run_id"])
    return found
