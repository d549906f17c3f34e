"""Is every episode true? Files against their names, rows against their digests, games against the rules.

Three answers, and never a guess: "true"; "false", with what is wrong; "not checkable", with what would have to be
installed. What makes an episode true by itself: `selfplay.store.verify.episode`; among the others:
`selfplay.store.verify.neighbours`; what true covers, in words: `selfplay.store.coverage`.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay import surroundings
from selfplay.errors import Damaged, UserError
from selfplay.io import storage
from selfplay.store.coverage import END, FALSE, NEIGHBOURS, NOT_CHECKABLE, TRUE, Check
from selfplay.store.table import chain, log
from selfplay.store.table.columns import of_newer
from selfplay.store.table.counters import WRITERS_PER_DRIVER
from selfplay.store.table.counts import recorded, rows_by_run
from selfplay.store.table.limits import Oversized, footer, refuse_bomb, refuse_long_cells
from selfplay.store.table.repair import ASIDE
from selfplay.store.table.replayed import missing_blocks, replay
from selfplay.store.table.snapshot import Snapshot, readable
from selfplay.store.table.table import EPISODES_TABLE, SIDE_TABLES, episodes_uri, first_line, open_table
from selfplay.store.verify.described import Described
from selfplay.store.verify.episode import Array, Rules, verify_batch, verify_episode
from selfplay.store.verify.neighbours import Deleted, Survey, survey
from selfplay.store.verify.prompts import Renders

__all__ = [
    "FALSE",
    "NOT_CHECKABLE",
    "TRUE",
    "Check",
    "Rules",
    "outside",
    "uncommitted",
    "verify_corpus",
    "verify_episode",
    "verify_rows",
]

#: Rows checked at once.
_BATCH_ROWS = 256
#: Episodes of one file that one process takes at a time.
_PART_ROWS = 4096
_CONTENT_NAME = re.compile(r"([0-9a-f]{64})\.parquet\Z")


@dataclass(frozen=True)
class _Task:
    """A part of a file: its rows at `rows` (ascending), or all; `damage` is looked for in its first part only.

    counted: episodes that the log says the file holds; those beyond would be in no task.
    """

    path: str
    counted: int
    rows: tuple[int, ...] | None
    first: bool


def verify_corpus(
    corpus: Snapshot,
    sample: int | None = None,
    seed: int = 0,
    processes: int = 1,
    renders: Renders | None = None,
) -> Iterator[Check]:
    """Every episode of the corpus, and every file that is missing, damaged or not what its name says. Streams.

    sample: only so many episodes, drawn evenly, and the files that hold them; None: all. processes: work side by side;
    the answers then come in no fixed order. One-file environments that this process has loaded are known to them.
    renders: compares prompts with what their tokenizers make of messages, in a process apart; it must travel to other
    processes. None: what only a tokenizer itself can tell is not covered.
    """
    together: Survey | None = None
    if sample is None:
        yield from _damaged_logs(corpus)
        yield from _miscounted(corpus)
        yield from _exchanged(corpus)
        together = _surveyed(corpus)
    tasks = _tasks(corpus, sample, seed)
    lies: dict[str, Check] = {}
    chained = chain.account(corpus, None if sample is None else {task.path for task in tasks})
    for lie in (*(() if together is None else together.lies), *chained.lies):
        lies.setdefault(lie.subject, lie)
    told = set[str]()
    for check in _each(corpus, tasks, processes, renders):
        if check.subject in lies:  # what is wrong with an episode by itself says more
            if check.subject not in told:
                told.add(check.subject)
                yield check if check.state == FALSE else lies[check.subject]
        elif check.state == TRUE:
            run, epoch = check.subject.split("/")[0], check.subject.rsplit("/", 2)[1]
            more = (NEIGHBOURS,) if together is None else together.uncovered.get(run, ())
            if (run, int(epoch) // WRITERS_PER_DRIVER) in chained.open:
                more = (*more, END)
            yield replace(check, uncovered=tuple(sorted({*check.uncovered, *more}))) if more else check
        else:
            yield check
    yield from (lie for subject, lie in lies.items() if subject not in told)


def _each(corpus: Snapshot, tasks: list[_Task], processes: int, renders: Renders | None) -> Iterator[Check]:
    """Every episode and file by itself."""
    if processes <= 1 or len(tasks) <= 1:
        rules = rules_of(corpus, renders)
        for task in tasks:
            yield from _verify_part(corpus, task, rules)
        return
    for checks in _side_by_side(corpus, tasks, min(processes, len(tasks)), renders):
        yield from checks


def _surveyed(corpus: Snapshot) -> Survey | None:
    """What the episodes say of each other; None where a file of theirs is damaged, which is named when its turn comes.

    Raises `UserError` for a side table that cannot be read: without it less would be checked.
    """

    def scan(columns: Mapping[str, pc.Expression], where: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        with readable(corpus.uri):
            corpus.refuse_bombs(where)
            batches = corpus.dataset.to_batches(
                columns=dict(columns), filter=where, batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=2
            )
            for batch in batches:
                batch.validate(full=True)
                refuse_long_cells(corpus.uri, batch)
                yield batch

    runs, policies, environments = (_plain(corpus, name) for name in ("runs", "policies", "environments"))
    described, deleted = Described(runs, policies, environments), _deleted(corpus)
    try:
        return survey(scan, described, deleted)
    except UserError:
        return None


def _side_by_side(
    corpus: Snapshot, tasks: list[_Task], processes: int, renders: Renders | None = None
) -> Iterator[list[Check]]:
    """What `_work` finds in each task, in no order. Raises `UserError` where a process dies: the next would, too."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    from selfplay.environments import registry

    context = multiprocessing.get_context("spawn")
    begin = (corpus.uri, corpus.version, registry.named(), renders)
    pool = ProcessPoolExecutor(processes, context, _begin, begin)
    try:
        with surroundings.left_out():
            waiting = {pool.submit(_work, task) for task in tasks}
        for done in as_completed(waiting):
            waiting.discard(done)
            yield done.result()
    except BrokenProcessPool:
        raise UserError(
            f"a process that read {corpus.uri} was killed, perhaps because a file unpacks to more memory than there "
            "is; `--processes 1` names the file"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def outside(corpus: Snapshot) -> tuple[list[Check], list[str]]:
    """Blocks that lie there whole and are in no entry of the log: those that were, and those that perhaps never were.

    The first are false, as the corpus lacks them: later blocks of the same writer are there, and blocks are committed
    in order. The others by their paths below the episodes table. Their writer was not replaced: it may be about to
    commit them, or was killed before it could; or the log has lost them.
    """
    table = episodes_uri(corpus.uri)
    again, left = missing_blocks(table, replay(table, {fault.file for fault in log.check(table)}), damaged=False)
    reason = "its episodes were part of the corpus, and the log has lost them; `selfplay repair` commits them again"
    lost = [Check(block.path, FALSE, reason) for block in again if block.acknowledged]
    return lost, sorted(block.path for block in (*again, *left) if not block.acknowledged)


def uncommitted(corpus: Snapshot) -> list[str]:
    """The blocks that perhaps never were part of the corpus: see `outside`."""
    return outside(corpus)[1]


def _plain(corpus: Snapshot, name: str) -> list[dict[str, Any]]:
    """The rows of a side table; times in microseconds, as a stranger's may be none that a date can be."""
    rows, schema = corpus.table(name), SIDE_TABLES[name].schema
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    for column in times:
        place = rows.schema.get_field_index(column)
        rows = rows.set_column(place, column, rows.column(column).cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
    return list(rows.to_pylist())


def _deleted(corpus: Snapshot) -> Deleted:
    """What the corpus says was taken out of it."""
    spans, runs = defaultdict[str, list[tuple[int, int]]](list), set[str]()
    for row in _plain(corpus, "deletions") if "deletions" in SIDE_TABLES else ():
        if row["writers"] is None:
            runs.add(row["run_id"])
        for one in row["writers"] or ():
            if one is not None and None not in (one["first"], one["last"]):
                spans[f"{row['run_id']}/{one['slot']}/{one['epoch']}"].append((one["first"], one["last"]))
    aside = storage.join(corpus.uri, ASIDE, EPISODES_TABLE)
    return Deleted(spans, frozenset(runs), next(iter(storage.entries(aside)), None) is not None)


def _damaged_logs(corpus: Snapshot) -> Iterator[Check]:
    """Files of the logs that are empty, torn or missing, whatever their age."""
    for name in (EPISODES_TABLE, *SIDE_TABLES):
        table = storage.join(corpus.uri, name)
        for fault in log.check(table):
            reason = f"the file {fault.what}; `selfplay repair` restores the log"
            yield Check(log.place(table, fault.file), FALSE, reason)


def _miscounted(corpus: Snapshot) -> Iterator[Check]:
    """Runs whose counters in the log say another number of episodes than its files hold."""
    table = open_table(episodes_uri(corpus.uri), corpus.version)
    for run_id, rows in sorted(rows_by_run(table).items()):
        counted = recorded(table, run_id)
        if counted is not None and counted.episodes != rows:
            reason = f"its files hold {rows:,} episodes, and its counter in the log says {counted.episodes:,}"
            yield Check(f"run {run_id}", FALSE, f"{reason}; the next start of the run counts them again")


def _exchanged(corpus: Snapshot) -> Iterator[Check]:
    """Tokenizers whose files do not have the digest by which episodes name them."""
    for row in corpus.table("tokenizers", ["digest", "files"]).to_pylist():
        digest, files = row["digest"] or "", row["files"] or ""
        if hashlib.sha256(files.encode()).hexdigest() != digest:
            yield Check(f"tokenizer {digest[:12]}", FALSE, "the table of tokenizers has files that are not its own")


def rules_of(corpus: Snapshot, renders: Renders | None = None) -> Rules:
    """What is installed here, and what the corpus says of its environments, runs and tokenizers."""
    files = {row["digest"]: row["files"] for row in corpus.table("tokenizers", ["digest", "files"]).to_pylist()}
    return Rules(corpus.environments(), corpus.table("runs", ["config", "config_digest"]).to_pylist(), files, renders)


_working: tuple[Snapshot, Rules] | None = None


def _begin(uri: str, version: int, trusted: list[Any], renders: Renders | None) -> None:
    global _working
    from selfplay.environments import registry
    from selfplay.store.table.snapshot import open

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process without a traceback of its own
    for portable in trusted:
        registry.unpack_any(portable)
    corpus = open(uri, version)
    _working = (corpus, rules_of(corpus, renders))


def _work(task: _Task) -> list[Check]:
    assert _working is not None
    return list(_verify_part(_working[0], task, _working[1]))


def _tasks(corpus: Snapshot, sample: int | None, seed: int) -> list[_Task]:
    """All of the corpus, or a sample, in parts of at most `_PART_ROWS` rows."""
    files = sorted((file["path"], int(file["num_records"])) for file in corpus.files())
    total = sum(rows for _, rows in files)
    chosen: Array | None = None
    if sample is not None and sample < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))
    tasks: list[_Task] = []
    before = 0
    for path, rows in files:
        mine = np.arange(rows) if chosen is None else chosen[(chosen >= before) & (chosen < before + rows)] - before
        before += rows
        if len(mine) == rows and rows <= _PART_ROWS:
            tasks.append(_Task(path, rows, None, True))
            continue
        parts = [mine[i : i + _PART_ROWS] for i in range(0, len(mine), _PART_ROWS)]
        tasks += [_Task(path, rows, tuple(part.tolist()), i == 0) for i, part in enumerate(parts)]
    return tasks


def _verify_part(corpus: Snapshot, task: _Task, rules: Rules) -> Iterator[Check]:
    root = storage.join(corpus.uri, EPISODES_TABLE)
    newest = None if of_newer(corpus.dataset.schema) else corpus.schema_version
    damage = _damage(storage.join(root, task.path)) if task.first else None
    if damage is not None:
        yield Check(task.path, FALSE, damage)
    try:
        held = footer(corpus.fragments()[task.path]).num_rows
        if task.first and held != task.counted:
            yield Check(task.path, FALSE, f"the file holds {held:,} episodes, and the log says {task.counted:,}")
        for batch in _rows(corpus, task):
            batch.validate(full=True)
            refuse_long_cells(task.path, batch)
            yield from verify_rows(batch, rules, newest)
    except Oversized as error:
        yield Check(task.path, FALSE, str(error))
    except (OSError, MemoryError, pa.ArrowException, UserError) as error:
        if damage is None:
            yield Check(task.path, FALSE, f"the file cannot be read: {first_line(error)}")


def verify_rows(batch: pa.RecordBatch, rules: Rules, newest: int | None) -> Iterator[Check]:
    """One answer a row. newest: the schema version that the table states, and no row has a later one; None: the table
    has columns that only a newer version of this package knows, and rows of it."""
    versions = batch.column("schema_version")
    most = pc.less_equal(versions, np.iinfo(np.int32).max if newest is None else newest)
    fits = pc.fill_null(pc.and_(pc.greater_equal(versions, 1), most), False)
    if not pc.all(fits).as_py():
        for row in batch.filter(pc.invert(fits)).select(["episode_id", "schema_version"]).to_pylist():
            reason = f"its schema version is {row['schema_version']}, and that of its table {newest}"
            yield Check(str(row["episode_id"]), FALSE, reason)
        batch = batch.filter(fits)
    if batch.num_rows:
        yield from verify_batch(batch, rules)


def _rows(corpus: Snapshot, task: _Task) -> Iterator[pa.RecordBatch]:
    """The rows of a task; of a large file only the row groups that hold them."""
    fragment, before = corpus.fragments()[task.path], 0
    refuse_bomb(task.path, footer(fragment))
    for group in range(fragment.num_row_groups):
        count = fragment.row_groups[group].num_rows
        mine = None if task.rows is None else [row - before for row in task.rows if before <= row < before + count]
        before += count
        if mine is not None and not mine:
            continue
        read = fragment.subset(row_group_ids=[group])
        if mine is not None and len(mine) < count:
            table = read.to_table(schema=corpus.dataset.schema)
            yield from table.take(mine).combine_chunks().to_batches(_BATCH_ROWS)
        else:
            yield from read.to_batches(schema=corpus.dataset.schema, batch_size=_BATCH_ROWS, batch_readahead=1)


def _damage(uri: str) -> str | None:
    """What is wrong with a file as such; None if it is there and is what its name says (where its name says it)."""
    named = _CONTENT_NAME.search(uri)
    try:
        if named is None:
            storage.size(uri)
        elif hashlib.sha256(storage.read(uri)).hexdigest() != named.group(1):
            return "the file was changed after it was written: its sha256 is not its name"
    except FileNotFoundError:
        return "the file is missing"
    except Damaged as error:
        return f"the file cannot be read: {error.reason}"
    return None
