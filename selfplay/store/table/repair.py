"""Repair of a corpus: what a power cut or a bad disk has damaged is found, set aside, and made good from the blocks.

`plan` looks and changes nothing; `carry_out` does what was planned. Nothing is deleted: damaged files are moved below
`_damaged` beside the tables. An entry of a log that is empty, torn or missing is replaced by one without actions, so
that versions keep their numbers; the blocks that it had brought lie in the table's folder, named by their content and
with slot, epoch and numbers inside, and are committed again in a new version, in the order in which they were sealed,
with the counters of their slots. Versions between the damage and the repair lack them. Everything goes through the log,
beside any number of writers: if one commits meanwhile, the plan is void, and must be made again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import RemoveAction

from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import log
from selfplay.store.table.closings import not_counted
from selfplay.store.table.deletions import enter_rows
from selfplay.store.table.doubled import Doubled, doubled, take_out
from selfplay.store.table.entries import sealed
from selfplay.store.table.log import Fault
from selfplay.store.table.replayed import Added, Orphan, State, damaged_files, missing_blocks, replay, unnamed
from selfplay.store.table.snapshot import open as open_corpus
from selfplay.store.table.table import (
    EPISODES_TABLE,
    MAX_COMMIT_RETRIES,
    SIDE_TABLES,
    STATISTICS,
    append,
    create,
    first_line,
    open_table,
    pause,
)

#: Where damaged files go, below the corpus.
ASIDE = "_damaged"
#: Lies there while a repair is under way: one that was killed has taken the damage away that would tell of lost blocks.
_UNDER_WAY = "under-way"


@dataclass(frozen=True)
class Step:
    """One thing that a repair does.

    action: a word for programs, such as "set aside". subject: the file or table. reason: what is wrong with it.
    result: what is so afterwards; with `reason`, each a clause for people. do: does it.
    """

    action: str
    subject: str
    reason: str
    result: str
    do: Callable[[], None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Repair:
    """What would be done to a corpus, in this order.

    untouched: what is wrong and stays so, in sentences. mark: an object that is there while it is done; None for none.
    """

    corpus: str
    steps: tuple[Step, ...]
    untouched: tuple[str, ...] = ()
    mark: str | None = None

    def carry_out(self) -> Iterator[Step]:
        """Does one step after the other, and yields those that are done. What is killed is taken up by another plan."""
        if self.mark is not None and self.steps:
            storage.write(self.mark, b"{}", durable=True)
        for step in self.steps:
            step.do()
            yield step
        if self.mark is not None and storage.exists(self.mark):
            storage.delete(self.mark)


def plan(corpus_uri: str, files: bool = True) -> Repair:
    """What would make the corpus whole. Changes nothing.

    corpus_uri: the folder that holds the tables. files: read every data file and compare it with its name; False: only
    the logs, which is quick.
    """
    corpus = storage.normalise(corpus_uri)
    killed = storage.exists(_mark(corpus))
    steps: list[Step] = []
    untouched: list[str] = []
    uncounted = False
    for name in (*SIDE_TABLES, EPISODES_TABLE):  # what is taken out of the episodes is entered in a side table
        table = storage.join(corpus, name)
        faults = log.check(table)
        state = replay(table, {fault.file for fault in faults})
        steps += [_set_aside(corpus, table, fault) for fault in faults if fault.what != "is missing"]
        headless = bool(state.entries or faults) and not state.described
        steps += [_replace(table, name, fault, headless) for fault in faults if fault.is_entry]
        if headless or (not state.entries and _has_data(name, table, state)):
            steps += _recreate(table, faults)
        bad = dict(damaged_files(table, state)) if files else {}
        taken_out = {path: state.files.pop(path) for path in bad}
        again: list[Orphan] = []
        if name == EPISODES_TABLE:
            again, left = missing_blocks(table, state, killed or bool(faults) or not state.described)
            untouched += [f"{b.path} is in no entry of the log, and the block before it is missing" for b in left]
        here = {block.range for block in again}
        steps += [_take_out(corpus, table, path, taken_out[path], bad[path], here) for path in bad]
        steps += _commit_again(table, again, state)
        if name == EPISODES_TABLE and (files or faults or killed):
            twice, undecided = doubled(table, state)
            steps += _take_out_doubled(table, twice, state)
            untouched += undecided
        if name != EPISODES_TABLE and (killed or faults or not state.described):
            steps += _add_again(corpus, name, table, state)
        uncounted |= name == "closings" and bool(bad or killed)
    if uncounted:  # last: it opens the episodes, whose log is whole by then
        steps.append(_say_uncounted(corpus))
    return Repair(corpus, tuple(steps), tuple(untouched), _mark(corpus))


def _mark(corpus: str) -> str:
    return storage.join(corpus, ASIDE, _UNDER_WAY)


def carry_out(repairs: Sequence[Repair]) -> None:
    """Does what was planned, in its order. Raises `UserError` where a run has written to the corpus since."""
    try:
        for repair in repairs:
            for _ in repair.carry_out():
                pass
    except CommitFailedError as error:
        raise UserError(f"{first_line(error)}; stop the run, then repair again") from error


def mend(corpus_uri: str) -> tuple[Step, ...]:
    """Repairs the logs of a corpus that is to be written to, if they are damaged; what was done.

    Raises `UserError` where that cannot be done.
    """
    done: list[Step] = []
    for attempt in range(MAX_COMMIT_RETRIES):
        if not is_damaged(corpus_uri):
            return tuple(done)
        try:
            for step in plan(corpus_uri, files=False).carry_out():
                done.append(step)
        except CommitFailedError:
            pause(attempt)
    raise UserError(f"the corpus at {corpus_uri} is written by too many others to be repaired; stop them and try again")


def is_damaged(corpus_uri: str) -> bool:
    """Whether a log of the corpus is damaged, as far as the sizes of its files and its newest entries show, or its
    repair was begun and not finished."""
    corpus = storage.normalise(corpus_uri)
    if storage.exists(_mark(corpus)):
        return True
    tables = [storage.join(corpus, name) for name in (EPISODES_TABLE, *SIDE_TABLES)]
    return any(log.check(table, since_checkpoint=True) or _is_headless(table) for table in tables)


def _is_headless(table: str) -> bool:
    """Whether data lie there and no log tells of them."""
    return not log.versions(table)[0] and _has_data(table.rsplit("/", 1)[1], table, State())


def _has_data(name: str, table: str, state: State) -> bool:
    """Whether data files lie in the folder of a table that are in no entry of its log."""
    return bool(unnamed(table, state) if name == EPISODES_TABLE else _unnamed_rows(table, state))


def _unnamed_rows(table: str, state: State) -> list[str]:
    """Data files of a side table that are in no entry of its log: their URIs."""
    prefix = storage.normalise(table) + "/"
    paths = [entry.uri.removeprefix(prefix) for entry in storage.entries(table)]
    found = [path for path in paths if path.endswith(".parquet") and not path.startswith(log.FOLDER)]
    return [storage.join(table, path) for path in found if path not in state.named]


SET_ASIDE, REPLACE, RECREATE, COMMIT, TAKE_OUT = "set aside", "replace", "recreate", "commit again", "take out"


def _set_aside(corpus: str, table: str, fault: Fault) -> Step:
    uri = log.place(table, fault.file)
    keep = fault.is_entry
    needed = keep or fault.file.endswith(".json")

    def do() -> None:
        move_aside(corpus, uri, keep)

    result = f"it goes to {ASIDE}" + ("" if needed else "; the entries of the log hold the same")
    return Step(SET_ASIDE, uri, fault.what, result, do)


def move_aside(corpus: str, uri: str, keep: bool = False) -> None:
    """Copies a file below `_damaged`, under a name that is free there, and deletes it, unless it is to be kept."""
    try:
        data = storage.read(uri)
    except FileNotFoundError:
        return
    name = uri.removeprefix(corpus).lstrip("/")
    number = 0
    while not storage.create(storage.join(corpus, ASIDE, name + (f".{number}" if number else "")), data, durable=True):
        number += 1
    if not keep:
        storage.delete(uri)


def _replace(table: str, name: str, fault: Fault, headless: bool) -> Step:
    uri = log.place(table, fault.file)

    def do() -> None:
        note = {"operation": "REPAIR", "operationParameters": {}, "engineInfo": "selfplay-factory"}
        entry = {"commitInfo": {"timestamp": int(time.time() * 1000), **note, "reason": f"the entry {fault.what}"}}
        data = json.dumps(entry).encode()
        if fault.version == 0 and headless:
            data = _description(name)
        storage.write(uri, data, durable=True)

    return Step(REPLACE, uri, fault.what, "an entry without actions takes its place", do)


def _recreate(table: str, faults: Sequence[Fault]) -> Iterator[Step]:
    """The first entry of a log that is all gone, or whose first entry is whole and describes no table."""
    if any(fault.version == 0 and fault.is_entry for fault in faults):
        return  # `_replace` makes it
    name = table.rsplit("/", 1)[1]

    def do() -> None:
        storage.write(log.place(table, log.entry_name(0)), _description(name), durable=True)

    yield Step(RECREATE, table, "its log has no entry that describes it", "it is described anew", do)


def _description(name: str) -> bytes:
    """The first entry of a table's log, as it is made where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        uri = storage.join(folder, name)
        if name == EPISODES_TABLE:
            create(uri, EPISODES, PARTITION_BY, STATISTICS)
        else:
            create(uri, SIDE_TABLES[name].schema)
        return Path(log.place(uri, log.entry_name(0))).read_bytes()


def _commit_again(table: str, blocks: Sequence[Orphan], state: State) -> Iterator[Step]:
    """One commit a run."""
    for run_id in sorted({block.run_id for block in blocks}):
        mine = [block for block in blocks if block.run_id == run_id]
        episodes = sum(block.rows for block in mine)

        def do(run_id: str = run_id, mine: Sequence[Orphan] = mine) -> None:
            opened = open_table(table)
            counters = state.counters_after(run_id, mine)
            if opened.transaction_version(run_id) != state.counters.get(run_id):
                raise CommitFailedError(f"run {run_id} has committed since the repair was planned")
            now = int(time.time() * 1000)
            before = opened.version()
            adds = [block.action() for block in mine]
            opened.create_write_transaction(
                list(adds),
                "append",
                opened.schema(),
                PARTITION_BY,
                commit_properties=CommitProperties(
                    custom_metadata={**sealed(adds, counters), "repair": "blocks whose entry in the log was lost"},
                    app_transactions=[Transaction(app, version, now) for app, version in counters.items()],
                    max_commit_retries=MAX_COMMIT_RETRIES,
                ),
            )
            opened.update_incremental()
            log.persist(table, before, opened.version())

        reason = f"{len(mine):,} blocks with {episodes:,} episodes are in no entry of the log"
        yield Step(COMMIT, f"run {run_id}", reason, "they are committed, in their order", do)


def _add_again(corpus: str, name: str, table: str, state: State) -> Iterator[Step]:
    """Rows of a side table whose entry was lost."""
    import pyarrow.parquet as pq

    for file in _unnamed_rows(table, state):

        def do(uri: str = file) -> None:
            import pyarrow as pa

            try:
                rows = pq.read_table(pa.BufferReader(storage.read(uri))).to_pylist()
            except (pa.ArrowException, OSError):
                move_aside(corpus, uri)
                return
            append(corpus, name, rows)

        yield Step(COMMIT, file, "its rows are in no entry of the log", "they are added where they are missing", do)


def _take_out(corpus: str, table: str, path: str, add: Added, reason: str, here: set[str]) -> Step:
    """For a data file of the newest version that is missing or damaged. here: episodes that are committed again."""
    uri = storage.join(table, path)

    def do() -> None:
        opened = open_table(table)
        moved: list[Transaction] = []
        if run_id := add.partition.get("run_id"):
            if add.range not in here:
                enter_rows(corpus, run_id, opened.version(), add.rows, add.writers, f"{path}: {reason}", "repair")
            counter = f"{run_id} upkeep"
            number, now = (opened.transaction_version(counter) or 0) + 1, int(time.time() * 1000)
            moved = [Transaction(counter, number, now), Transaction(f"{run_id} counted", -1, now)]  # count anew
        before = opened.version()
        opened.create_write_transaction(
            [RemoveAction(path, True, int(time.time() * 1000), add.size, dict(add.partition))],
            "append",
            opened.schema(),
            list(add.partition),
            commit_properties=CommitProperties(
                custom_metadata={"repair": reason}, max_commit_retries=MAX_COMMIT_RETRIES, app_transactions=moved
            ),
        )
        opened.update_incremental()
        log.persist(table, before, opened.version())
        move_aside(corpus, uri)

    lost = f"its {add.rows:,} rows ({add.range}) are lost"
    if add.range in here:
        lost = "a whole file with the same episodes is committed in its place"
    return Step(TAKE_OUT, uri, reason, f"it is taken out of the table, and {lost}", do)


def _say_uncounted(corpus: str) -> Step:
    """For closings that were lost. Where a later driver has gone on, that they are missing would be false."""

    def do() -> None:
        append(corpus, "closings", not_counted(open_corpus(corpus)))

    reason = "it may lack rows of drivers that others have followed"
    result = "new ones say that nobody knows how much these had archived"
    return Step(COMMIT, storage.join(corpus, "closings"), reason, result, do)


def _take_out_doubled(table: str, files: Sequence[Doubled], state: State) -> Iterator[Step]:
    """One commit a run."""
    for run_id in sorted({file.run_id for file in files}):
        mine = [file for file in files if file.run_id == run_id]

        def do(mine: Sequence[Doubled] = mine) -> None:
            take_out(table, mine, state)

        rows, rest = sum(file.twice for file in mine), sum(bool(file.left) for file in mine)
        reason = f"{rows:,} episodes are there more than once, as the log has lost the entry of a compaction"
        result = f"{len(mine):,} files are taken out of the table; what they hold is in others"
        result += f", but for {rest:,} whose other episodes are written again" if rest else ""
        yield Step(TAKE_OUT, f"run {run_id}", reason, result, do)
