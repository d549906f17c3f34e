"""The chain of each writer: whether episodes were removed, reordered or inserted.

Every row from schema version 2 on names the content digest of the episode that its writer (run, slot, epoch) sealed
before, so who changes one must seal every later one of that writer anew. What ends a chain, and whole writers, stand in
the table `closings`: how many episodes each had archived when its driver ended, and the digest of the last. What was
taken out on purpose stands in `deletions`. Rows never change, so all this holds through compaction and vacuum.

Not covered, and counted: the end of a driver that has no closing yet, as it is running or was killed and nothing has
gone on since (`selfplay.store.table.drivers`). Not covered either: somebody who seals all rows of a writer anew and
rewrites its closing, which only a signature tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.errors import UserError
from selfplay.store.coverage import FALSE, Check
from selfplay.store.table.counters import WRITERS_PER_DRIVER
from selfplay.store.table.drivers import NOT_COUNTED, Driver, Writer, drivers_lie, not_closed
from selfplay.store.table.limits import footer, refuse_bomb
from selfplay.store.table.snapshot import Snapshot

#: All that is read of an episode.
COLUMNS = ("run_id", "slot", "epoch", "number", "status", "schema_version", "content_digest", "previous_digest")
_KEY = ("run_id", "slot", "epoch", "number")
#: Files that are read side by side; files, and rows of them, that are looked at together.
_AT_ONCE, _FILES, _ROWS = 8, 64, 2**16


@dataclass(frozen=True)
class Span:
    """Episodes of one writer that are there, without a gap from number `first` to `last`, inclusive.

    link: what the first says of the episode before it. head: content digest of the last; null where it is not known.
    linked: its rows have links (schema version 2). aborted: those of that status.
    """

    writer: Writer
    first: int
    last: int
    link: str | None
    head: str | None
    linked: bool
    aborted: int = 0

    @property
    def episodes(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Chains:
    """The spans of each writer, ascending, and what is false in and between them.

    unread: runs of which a file could not be read: what is missing there is named by the file.
    """

    spans: dict[Writer, tuple[Span, ...]]
    false: tuple[Check, ...]
    unread: frozenset[str] = frozenset()


def chains_of(corpus: Snapshot, where: Any = None, paths: Collection[str] | None = None) -> Chains:
    """The chains of some episodes. In memory at once: keys and digests of some files, and the spans.

    where: an expression over `COLUMNS`. paths: of the only files to read; None: all.
    """
    fragments, schema = corpus.fragments(), corpus.dataset.schema
    found: list[Span] = []
    false: list[Check] = []
    unread: set[str] = set()

    def look(file: dict[str, Any]) -> pa.Table | None:
        try:
            refuse_bomb(file["path"], footer(fragments[file["path"]]))
            read = fragments[file["path"]].to_table(schema, list(COLUMNS), filter=where)
            read.validate(full=True)
            return read
        except (OSError, pa.ArrowException, UserError):
            return None

    files = [file for file in corpus.files() if paths is None or file["path"] in paths]
    held: list[pa.Table] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in (files[i : i + _FILES] for i in range(0, len(files), _FILES)):
            for file, read in zip(some, pool.map(look, some), strict=True):
                if read is None:
                    unread.add(file["partition.run_id"])
                    continue
                held.append(read)
                if sum(one.num_rows for one in held) >= _ROWS:
                    _take(held, found, false)
            _take(held, found, false)
    spans_of, between = _joined(found)
    return Chains(spans_of, (*false, *between), frozenset(unread))


def _take(held: list[pa.Table], found: list[Span], false: list[Check]) -> None:
    """Looks at what was read, and forgets it."""
    if held:
        spans, wrong = spans_in(pa.concat_tables(held))
        held.clear()
        found += spans
        false += wrong


def spans_in(rows: pa.Table) -> tuple[list[Span], list[Check]]:
    """The spans of some rows (`COLUMNS`), in whatever order they are, and what is false of single ones."""
    if not rows.num_rows:
        return [], []
    rows = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in _KEY])).combine_chunks()
    column = {name: rows.column(name).combine_chunks() for name in COLUMNS}
    number = _integers(column["number"])
    linked = _integers(column["schema_version"]) > 1
    same = np.ones(rows.num_rows - 1, bool)
    for name in ("run_id", "slot", "epoch"):
        same &= _true(pc.equal(column[name][1:], column[name][:-1]))
    follows = np.concatenate([[False], same & (np.diff(number) == 1)])
    again = np.concatenate([[False], same & (np.diff(number) == 0)])  # that is said elsewhere
    digests, links = column["content_digest"], column["previous_digest"]
    has_link = _true(links.is_valid())
    agree = np.concatenate([[True], _true(pc.equal(links[1:], digests[:-1]))])
    changed = np.concatenate([[False], linked[1:] != linked[:-1]])
    wrong = {
        "it is linked to another episode than the one before it: one was changed, removed or put there": (
            follows & linked & has_link & ~agree & ~changed
        ),
        "it is linked to no episode, and others were sealed before it": linked & ~has_link & (number > 0),
        "it is linked to an episode, and it is the first of its writer": linked & has_link & (number == 0),
        "it has a column that its schema version does not know": ~linked & has_link,
        "it has another schema version than the episode before it": follows & changed,
    }
    checks = [
        Check("/".join(str(column[name][row]) for name in _KEY), FALSE, reason)
        for reason, where in wrong.items()
        for row in np.flatnonzero(where)
    ]
    aborted = np.concatenate([[0], np.cumsum(_true(pc.equal(column["status"], "aborted")))])
    starts = [*np.flatnonzero(~(follows | again)).tolist(), rows.num_rows]
    spans = [
        Span(
            (column["run_id"][a].as_py(), column["slot"][a].as_py(), column["epoch"][a].as_py()),
            int(number[a]), int(number[b - 1]), links[a].as_py(), digests[b - 1].as_py(), bool(linked[a]),
            int(aborted[b] - aborted[a]),
        )
        for a, b in pairwise(starts)
    ]  # fmt: skip
    return spans, checks


def _integers(column: pa.Array) -> np.ndarray[Any, Any]:
    return np.asarray(pc.fill_null(column, -1)).astype(np.int64)


def _true(column: pa.Array) -> np.ndarray[Any, Any]:
    """Booleans, nulls being false."""
    return np.asarray(pc.fill_null(column, False))


def _joined(found: Iterable[Span]) -> tuple[dict[Writer, tuple[Span, ...]], list[Check]]:
    """The spans of each writer, those that meet made one; and where they meet and are not linked."""
    by_writer: dict[Writer, list[Span]] = defaultdict(list)
    for span in found:
        by_writer[span.writer].append(span)
    joined: dict[Writer, tuple[Span, ...]] = {}
    false: list[Check] = []
    for writer, spans in by_writer.items():
        spans.sort(key=lambda span: (span.first, span.last))
        whole = [spans[0]]
        for span in spans[1:]:
            last = whole[-1]
            if span.first > last.last + 1:
                whole.append(span)
                continue
            if span.first == last.last + 1 and span.linked and span.link is not None and span.link != last.head:
                reason = "it is linked to another episode than the one before it: one was changed, removed or put there"
                false.append(Check(_name(writer, span.first), FALSE, reason))
            if span.last > last.last:
                aborted = last.aborted + span.aborted
                whole[-1] = replace(last, last=span.last, head=span.head, aborted=aborted)
        joined[writer] = tuple(whole)
    return joined, false


def _name(writer: Writer, number: int) -> str:
    return "/".join(map(str, (*writer, number)))


@dataclass(frozen=True)
class Account:
    """What is false of chains and of their ends. open: drivers, (run, epoch), that archived anything and of which no
    closing says how much: what is missing at the ends of their writers does not show."""

    lies: list[Check]
    open: frozenset[Driver] = frozenset()


def account(corpus: Snapshot, paths: Collection[str] | None = None) -> Account:
    """Episodes that are not linked as they were sealed; and of each writer what is missing or too much.

    paths: of the only files to read, as for a sample; then nothing is said of what is missing.
    """
    chains = chains_of(corpus, paths=paths)
    lies = list(chains.false)
    if paths is not None:
        return Account(lies)
    closings, ends = dict[Driver, dict[str, Any]](), dict[Writer, dict[str, Any]]()
    for row in _rows(corpus, "closings", ("epoch", "table_version", "episodes"), ("slot", "epoch", "episodes", "head")):
        if isinstance(row, Check):
            lies.append(row)
        elif row["table_version"] <= corpus.version:
            writers = row["writers"] or ()
            closings[row["run_id"], row["epoch"]] = row
            ends |= {(row["run_id"], one["slot"], one["epoch"]): one for one in writers}
            if sum(one["episodes"] for one in writers) != row["episodes"]:
                subject = f"closings of run {row['run_id']}, epoch {row['epoch']}"
                reason = "its writers do not have as many episodes together as it says"
                lies.append(Check(subject, FALSE, reason))
    taken_out: dict[Writer, list[Span]] = defaultdict(list)
    unnamed: dict[str, int] = defaultdict(int)  # episodes of a run that were taken out, nobody knows which
    for row in _rows(corpus, "deletions", ("table_version", "episodes"), ("slot", "epoch", "first", "last")):
        if isinstance(row, Check):
            lies.append(row)
            continue
        numbers = [(one["first"], one["last"]) for one in row["writers"] or ()]
        if any(not 0 <= a <= b for a, b in numbers) or sum(b - a + 1 for a, b in numbers) > row["episodes"]:
            lies.append(Check(f"deletions of run {row['run_id']}", FALSE, "it names more episodes than it counts"))
            continue
        if row["writers"] is None:
            unnamed[row["run_id"]] += row["episodes"]
        for one in row["writers"] or ():
            writer = (row["run_id"], one["slot"], one["epoch"])
            taken_out[writer].append(Span(writer, one["first"], one["last"], None, one["head"], True))
    unknown = {*chains.unread, *unnamed}
    for writer in sorted({*chains.spans, *ends}, key=repr):
        if writer[0] not in chains.unread:
            lies += _of_writer(writer, chains.spans.get(writer, ()), taken_out[writer], ends.get(writer), unnamed)
    runs = corpus.table("runs", ["run_id", "epoch"]).to_pylist()
    linked = {writer: spans[0].linked for writer, spans in chains.spans.items()}
    lies += drivers_lie(linked, closings, {(row["run_id"], row["epoch"]) for row in runs}, unknown)
    return Account(lies, not_closed(linked, closings))


def open_ended(corpus: Snapshot) -> list[str]:
    """Runs of which a driver that archived anything has no closing, by the statistics in the log: it has not ended, was
    killed and nothing has gone on since, or was of a version of this package without closings. What is missing at the
    ends of its writers does not show."""
    drivers: set[Driver] = set()
    for file in corpus.files():
        ends = (file.get(f"{end}.epoch") for end in ("min", "max"))
        drivers |= {(file["partition.run_id"], epoch // WRITERS_PER_DRIVER) for epoch in ends if epoch is not None}
    closings = corpus.table("closings", ["run_id", "epoch", "table_version", "how"]).to_pylist()
    closed = {
        (row["run_id"], row["epoch"])
        for row in closings
        if (row["table_version"] or 0) <= corpus.version and row["how"] != NOT_COUNTED
    }
    return sorted({run_id for run_id, _ in drivers - closed})


def _rows(
    corpus: Snapshot, name: str, needed: Sequence[str], needed_of_writers: Sequence[str]
) -> Iterator[dict[str, Any] | Check]:
    """The rows of a side table; for one without what it needs, that it is false."""
    for row in corpus.rows(name):
        writers = row["writers"] or ()
        whole = all(row[column] is not None for column in ("run_id", *needed)) and all(
            one is not None and all(one[column] is not None for column in needed_of_writers) for one in writers
        )
        yield row if whole else Check(f"{name} of run {row['run_id']}", FALSE, "a row of it lacks what it must say")


def _of_writer(
    writer: Writer,
    there: Sequence[Span],
    taken_out: Sequence[Span],
    end: dict[str, Any] | None,
    unnamed: dict[str, int],
) -> Iterator[Check]:
    """What of a writer's episodes is missing without an entry, or is there beyond its end."""
    subject = f"run {writer[0]}: slot {writer[1]}, epoch {writer[2]}"
    wanted = end["episodes"] if end is not None else 0
    if there and not there[-1].linked:  # of schema version 1: what was taken out of its middle then left no entry
        there = [replace(there[-1], first=0)]
    heads = {span.last: span.head for span in taken_out}
    gone_from = _Sweep(taken_out)
    at, link = 0, None  # the number that comes next, and the digest before it, as far as it is known
    for span in [*there, None]:
        first = span.first if span is not None else max(at, wanted)
        while at < first and (gone := gone_from.covering(at)) is not None:
            at, link = min(first, gone.last + 1), heads.get(min(first, gone.last + 1) - 1)
        if at < first:
            missing, run = first - at, writer[0]
            if unnamed[run] >= missing:
                unnamed[run] -= missing
            elif span is None:
                held = sum(one.episodes for one in there)
                yield Check(subject, FALSE, f"it ended with {wanted:,} episodes, and {held:,} are there")
            else:
                which = f"episode {at} is" if missing == 1 else f"episodes {at} to {first - 1} are"
                yield Check(subject, FALSE, f"{which} missing, and the table of deletions does not say why")
            link = None
        if span is None:
            break
        if span.linked and span.first and link is not None and span.link != link:
            yield Check(_name(writer, span.first), FALSE, "it is linked to another episode than the one taken out")
        at, link = span.last + 1, span.head
    if end is not None and at > wanted:
        yield Check(subject, FALSE, f"it ended with {wanted:,} episodes, and {at - wanted:,} more are there")
    elif end is not None and there and there[-1].last == wanted - 1 and there[-1].head != end["head"]:
        yield Check(subject, FALSE, "its last episode is another than the one that it ended with")


class _Sweep:
    """Spans that are asked for ascending numbers: each is looked at once."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._waiting = sorted(spans, key=lambda one: -one.first)
        self._furthest: Span | None = None

    def covering(self, number: int) -> Span | None:
        """Of the spans that hold a number the one that reaches furthest."""
        while self._waiting and self._waiting[-1].first <= number:
            one = self._waiting.pop()
            if self._furthest is None or one.last > self._furthest.last:
                self._furthest = one
        return self._furthest if self._furthest is not None and number <= self._furthest.last else None
