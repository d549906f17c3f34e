"""What a run has archived, as numbers that are known without reading an episode.

Every commit of a run moves three counters in the log of the episodes table together with the blocks that it brings
(`RUN episodes`, `RUN positions`, `RUN training rows`; no run id contains a space), so that they are exact after any
crash, and a restart reads three numbers however much was archived. Where the files hold another number of episodes, by
the log, they are counted again, too. A fourth counter, `RUN counted`, holds the value of
the run's own counter at that commit: where they differ, a version of this package that knew no counters has archived
since, and the run is counted once by reading it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from selfplay.store.table.changes import run_at
from selfplay.store.table.snapshot import Snapshot
from selfplay.store.table.table import episodes_uri, open_table

_NAMES = ("episodes", "positions", "training rows")


@dataclass(frozen=True)
class Counts:
    """episodes: archived. positions: moves of games that a search chose. training_rows: what a learner takes from them,
    one for each full search of a trainable game."""

    episodes: int = 0
    positions: int = 0
    training_rows: int = 0

    def __add__(self, more: Counts) -> Counts:
        return Counts(
            self.episodes + more.episodes, self.positions + more.positions, self.training_rows + more.training_rows
        )


def of_batch(batch: pa.RecordBatch) -> Counts:
    """Counts of some episodes (columns "trainable" and "game")."""
    from selfplay.episode.training import count_rows  # pyspiel: readers of a corpus need not load it

    steps = pc.list_flatten(pc.struct_field(batch.column("game"), "steps"))
    searched = pc.sum(pc.equal(pc.struct_field(steps, "source"), "search")).as_py() or 0
    return Counts(batch.num_rows, searched, count_rows(batch))


def recorded(table: DeltaTable, run_id: str) -> Counts | None:
    """What the counters in the log say; None where the run has none, or archived without moving them."""
    counter = table.transaction_version(run_id)
    if counter is None or table.transaction_version(f"{run_id} counted") != counter:
        return None
    return Counts(*(table.transaction_version(f"{run_id} {name}") or 0 for name in _NAMES))


def rows_by_run(table: DeltaTable) -> dict[str, int]:
    """How many episodes the files of each run hold, by the log."""
    files = pa.table(table.get_add_actions(flatten=True))
    if not files.num_rows:
        return {}
    rows = files.group_by("partition.run_id").aggregate([("num_records", "sum")])
    return dict(
        zip(rows.column("partition.run_id").to_pylist(), rows.column("num_records_sum").to_pylist(), strict=True)
    )


def counters(run_id: str, counts: Counts, counter: int) -> dict[str, int]:
    """The counters of a commit. counter: of the run, as that commit sets it."""
    values = (counts.episodes, counts.positions, counts.training_rows)
    named = {f"{run_id} {name}": value for name, value in zip(_NAMES, values, strict=True)}
    return {**named, f"{run_id} counted": counter}


def archived_by(corpus: Snapshot, run_id: str) -> Counts:
    """What a run has in this version of the corpus: its counters, or a count of the episodes where there are none."""
    return archived_at(corpus.uri, run_id, corpus.version)


def archived_at(uri: str, run_id: str, version: int) -> Counts:
    """The same of a version of the corpus at `uri`, also where it was vacuumed."""
    try:
        table = open_table(episodes_uri(uri), version)
        found, held = recorded(table, run_id), rows_by_run(table).get(run_id, 0)
    except DeltaError:
        found, held = None, 0
    if found is not None and found.episodes == held:
        return found
    corpus, mine = run_at(uri, run_id, version)
    return sum(map(of_batch, corpus.episodes(mine, ["trainable", "game"])), Counts())
