"""What each commit of the episodes table brought, and what a run had at a version, from the log alone.

The log holds an entry for each commit. Where its old part was given back (`selfplay.store.table.log_trim`), what the
entries said of the runs was written down before, below `history/` in the corpus: `VERSION.json`, what some runs had at
a version that is still used, and `VERSION.base.json`, what all runs had there, from which later versions are counted
on.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table.log import HISTORY
from selfplay.store.table.table import episodes_uri, log_entries

#: Of a run: (slot, epoch) -> number of its last episode.
Writers = dict[tuple[str, int], int]
_NAME = re.compile(r"[0-9]{20}(\.base)?\.json")
#: Entries that are read at once.
_AT_ONCE = 32


def brought(table: str, version: int) -> list[dict[str, Any]]:
    """The `add` actions of a commit that brought data; those of a compaction did not.

    Raises `UserError` where the log no longer reaches back to it.
    """
    actions = _entry(table, version)
    return [action["add"] for action in actions if "add" in action and action["add"].get("dataChange", True)]


def lost_some(table: str, versions: Iterable[int]) -> set[str | None]:
    """Runs of which some commits took episodes out; a compaction takes out files, and no episode.

    Raises `UserError` where the log no longer reaches back to them.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = pool.map(lambda version: _entry(table, version), versions)
        removed = (action["remove"] for actions in entries for action in actions if "remove" in action)
        return {run_of(remove) for remove in removed if remove.get("dataChange", True)}


def _entry(table: str, version: int) -> list[dict[str, Any]]:
    try:
        return log_entries(table, version)
    except FileNotFoundError:
        raise UserError(
            f"the log of {table} no longer reaches back to version {version}; start from a later one"
        ) from None


def run_of(action: dict[str, Any]) -> str | None:
    """The run of a block that was added or removed."""
    values: dict[str, str] = action.get("partitionValues") or {}
    return values.get("run_id")


def ends_of(add: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Smallest and largest slot, epoch and number of a block. Raises `UserError` where the log does not say them."""
    try:
        stats = json.loads(add["stats"])
        low, high = stats["minValues"], stats["maxValues"]
        for name in ("slot", "epoch", "number"):
            low[name], high[name]
        return low, high
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"the log does not say which episodes its file {add['path']} holds") from None


def had_at(corpus_uri: str, version: int, run_id: str | None = None) -> dict[str, Writers]:
    """What runs had at a version, deleted or not. run_id: of the only one that is asked for; None: all.

    Raises `UserError` where the log was given back so far that nobody knows any more.
    """
    table, held = episodes_uri(corpus_uri), defaultdict[str, Writers](dict)
    known = {int(name[:20]): name for name in _names(corpus_uri)[::-1]}
    if version in known and run_id is not None:
        exact = _load(corpus_uri, known[version])
        if run_id in exact:
            return {run_id: exact[run_id]}
    bases = [at for at, name in known.items() if name.endswith(".base.json") and at <= version]
    first = max(bases, default=0)
    if bases:
        held |= _load(corpus_uri, known[first])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for blocks in pool.map(lambda number: brought(table, number), range(first + 1, version + 1)):
            for block in blocks:
                run = run_of(block)
                if run is not None and run_id in (None, run):
                    high = ends_of(block)[1]
                    writer = high["slot"], high["epoch"]
                    held[run][writer] = max(held[run].get(writer, -1), high["number"])
    return dict(held)


def write_down(corpus_uri: str, used: dict[int, set[str]], oldest: int, there: Collection[str]) -> None:
    """Keeps what the entries before `oldest` say, so that they can go.

    used: versions before it, with the runs of which it must be known what they had. there: runs that are not deleted.
    """
    known = _names(corpus_uri)
    for version, runs in sorted(used.items()):
        if f"{version:020d}.json" not in known:
            held = had_at(corpus_uri, version)
            _save(corpus_uri, f"{version:020d}.json", {run: held[run] for run in runs if run in held})
    base = f"{oldest:020d}.base.json"
    if base not in known:
        held = had_at(corpus_uri, oldest)
        _save(corpus_uri, base, {run: writers for run, writers in held.items() if run in there})
    for name in known:
        if name.endswith(".base.json") and name < base:
            storage.delete(storage.join(corpus_uri, HISTORY, name))


def _names(corpus_uri: str) -> list[str]:
    """Of what was written down, sorted: by version, and of one version the base first."""
    return [name for name in storage.names(storage.join(corpus_uri, HISTORY)) if _NAME.fullmatch(name)]


def _save(corpus_uri: str, name: str, held: dict[str, Writers]) -> None:
    rows = {run: [[slot, epoch, last] for (slot, epoch), last in sorted(had.items())] for run, had in held.items()}
    storage.write(storage.join(corpus_uri, HISTORY, name), json.dumps(rows).encode(), durable=True)


def _load(corpus_uri: str, name: str) -> dict[str, Writers]:
    place = storage.join(corpus_uri, HISTORY, name)
    try:
        rows = json.loads(storage.read(place))
        return {run: {(str(s), int(e)): int(last) for s, e, last in had} for run, had in rows.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{place} does not say what runs had at a version; it is damaged") from None
