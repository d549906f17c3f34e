"""What follows from other episodes: none is missing, none is there twice under another name, all are in order.

One pass over the few columns that this takes keeps some sixty bytes an episode; of episodes that look alike, and in
honest corpora hardly any do, the rest is read in a second one. What the side tables say:
`selfplay.store.verify.described`.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.digest import content_digests
from selfplay.episode.schema import EPISODES
from selfplay.store.coverage import FALSE, GAPS, GROUP, TIMES, Check
from selfplay.store.table.counters import WRITERS_PER_DRIVER, player_seed
from selfplay.store.verify.described import OTHER_CLOCK, SAME_CLOCK, Combination, Described, Named
from selfplay.store.verify.lengths import Lengths

#: Streams the rows of a corpus: the columns to read, and a filter.
Scan = Callable[[Mapping[str, pc.Expression], pc.Expression | None], Iterator[pa.RecordBatch]]
Array = np.ndarray[Any, Any]

_PLAIN = (
    "episode_id run_id slot epoch number schema_version kind status origin env_id ruleset_digest seed code_commit "
    "config_digest package_version host started_at wall_ms n_steps policy_spans parents"
).split()
_NESTED = ("group_id", "sample_index", "difficulty")
COLUMNS: dict[str, pc.Expression] = {name: pc.field(name) for name in _PLAIN}
COLUMNS |= {name: pc.field("reasoning", name) for name in _NESTED}
#: What two copies of one game have in common, and of one episode of any kind (which was begun at one time).
_GAME = ("kind", "env_id", "seed", "game")
_ANY = ("kind", "env_id", "seed", "started_at", "returns", "policy_spans", "verdicts", "game", "reasoning", "control")
#: Seeds of a writer are drawn anew to look for its episodes' among them: so many more than it has episodes, at most.
_MORE_SEEDS = 2_000_000
_PLAYER = re.compile(r"p[0-9]{1,9}(\.[1-9][0-9]{0,8})?\Z")


@dataclass(frozen=True)
class Survey:
    """lies: what is false, by episode, writer or row of a side table. uncovered: of each run, see `coverage`."""

    lies: list[Check]
    uncovered: dict[str, tuple[str, ...]]


@dataclass
class _Writer:
    """The episodes of one writer, as they come; `[n]` each. version: of the run's own policy, -1 where none played, or
    where a later one may have been known (aborted). linked: the rows have a schema version with which every deletion is
    entered in a table. group: hash of the group's name; index: in it, -1 without one."""

    name: str
    run: str
    title: str
    game: bool
    linked: bool
    number: array[int] = field(default_factory=lambda: array("q"))
    seed: array[int] = field(default_factory=lambda: array("q"))
    ended: array[int] = field(default_factory=lambda: array("q"))
    version: array[int] = field(default_factory=lambda: array("q"))
    group: array[int] = field(default_factory=lambda: array("q"))
    index: array[int] = field(default_factory=lambda: array("q"))
    sampled: array[int] = field(default_factory=lambda: array("b"))


@dataclass
class _Alike:
    """Hashes of what copies share, an episode each, and the seeds of the episodes."""

    keys: array[int] = field(default_factory=lambda: array("q"))
    seeds: array[int] = field(default_factory=lambda: array("q"))

    def suspects(self) -> list[int]:
        """The seeds of episodes that have a hash in common."""
        if not len(self.keys):
            return []
        _, which, counts = np.unique(np.frombuffer(self.keys, np.int64), return_inverse=True, return_counts=True)
        return list(np.unique(np.frombuffer(self.seeds, np.int64)[counts[which] > 1]).tolist())


@dataclass(frozen=True)
class Deleted:
    """What was taken out of a corpus, and why is known. spans: writer (run/slot/epoch) -> first and last numbers,
    inclusive, in any order. runs: of which it is not known which episodes. repaired: a repair may have left no
    entry."""

    spans: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    runs: frozenset[str] = frozenset()
    repaired: bool = False

    @cached_property
    def _joined(self) -> dict[str, list[tuple[int, int]]]:
        return {writer: joined_spans(spans) for writer, spans in self.spans.items()}

    def holds(self, writer: str, first: int, last: int) -> bool:
        """Whether all of these numbers were taken out."""
        spans = self._joined.get(writer, ())
        at = bisect_right(spans, (first, math.inf)) - 1
        return first > last or (at >= 0 and spans[at][1] >= last)


def joined_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans (first, last; both inclusive) in order, those that meet or overlap made one; empty ones are left out.

    A corpus may be a stranger's, and have as many as it has numbers: nothing looks through all of them at each number.
    """
    joined = list[tuple[int, int]]()
    for first, last in sorted(span for span in spans if span[0] <= span[1]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def survey(scan: Scan, described: Described, deleted: Deleted | None = None) -> Survey:
    """Looks at all episodes together. scan: streams them."""
    deleted = deleted or Deleted()
    writers: dict[tuple[Any, ...], _Writer] = {}
    games, anything, lengths = _Alike(), _Alike(), Lengths()
    parents: list[tuple[str, str]] = []
    for row in _rows(scan):
        told = _told(row)
        described.add(*told)
        _look(row, told[-1], writers)
        _remember(row, games, anything)
        lengths.add(row)
        parents += [(row["episode_id"], str(one["episode_id"])) for one in row["parents"] or () if one]
    lies = [*_copies(scan, games, anything), *described.lies(), *lengths.lies()]  # of an episode the first is told
    if described.contradicted():
        for row in _rows(scan):
            if (reason := described.contradiction(*_told(row))) is not None:
                lies.append(Check(str(row["episode_id"]), FALSE, reason))
    for key, writer in sorted(writers.items(), key=lambda item: item[1].name):
        lies += _writer_lies(writer, key, described, deleted)
    lies += _parents_lie(parents, writers, deleted)
    return Survey(lies, described.uncovered())


def _rows(scan: Scan) -> Iterator[dict[str, Any]]:
    """The columns looked at, of each episode; times in microseconds, 0: unknown."""
    names = list(COLUMNS)
    for batch in scan(COLUMNS, None):
        times = pc.fill_null(batch.column("started_at").cast(pa.int64()), 0)
        columns = ((times if name == "started_at" else batch.column(name)).to_pylist() for name in names)
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _told(row: dict[str, Any]) -> tuple[Combination, int, list[Named], int]:
    """What an episode says of its making, when it began, which policies played in it, and when it ended."""
    run, started = row["run_id"], row["started_at"]
    how = Combination(
        run, (row["epoch"] or 0) // WRITERS_PER_DRIVER, row["env_id"], row["ruleset_digest"], row["config_digest"],
        row["code_commit"], row["package_version"], row["host"],
    )  # fmt: skip
    spans = [span for span in row["policy_spans"] or () if span is not None]
    policies = [Named(run, span["policy_id"], span["version"], span["digest"], row["origin"]) for span in spans]
    return how, started, policies, min(max(started + 1000 * (row["wall_ms"] or 0), -(2**62)), 2**62)


def _look(row: dict[str, Any], ended: int, writers: dict[tuple[Any, ...], _Writer]) -> None:
    run, slot, epoch = key = (row["run_id"], row["slot"], row["epoch"])
    writer = writers.get(key)
    if writer is None:
        title = f"run {run}: slot {slot}, epoch {epoch}"
        linked = (row["schema_version"] or 0) > 1
        writer = writers[key] = _Writer(f"{run}/{slot}/{epoch}", run, title, row["kind"] == "game", linked)
    own = -1
    if row["status"] != "aborted":
        mine = (span["version"] or 0 for span in row["policy_spans"] or () if span and span["policy_id"] == run)
        own = max(mine, default=-1)
    writer.number.append(-1 if row["number"] is None else row["number"])
    writer.seed.append(row["seed"] or 0)
    writer.ended.append(ended)
    writer.version.append(own)
    grouped = row["sample_index"] is not None and row["group_id"] is not None
    writer.group.append(hash(row["group_id"]) if grouped else 0)
    writer.index.append(row["sample_index"] if grouped else -1)
    writer.sampled.append(row["origin"] == "cot_rl")


def _remember(row: dict[str, Any], games: _Alike, anything: _Alike) -> None:
    seed = row["seed"] or 0
    if row["kind"] == "game" and _by_own_policy(row["run_id"], row["policy_spans"]):
        games.keys.append(hash((row["run_id"], seed)))
        games.seeds.append(seed)
    if row["started_at"] > 0:
        anything.keys.append(hash((row["kind"], seed, row["started_at"], row["difficulty"])))
        anything.seeds.append(seed)


def _by_own_policy(run: str, spans: Any) -> bool:
    """Whether the policy of the run played. Games at random follow from their seed, and two writers may have one."""
    return any(span is not None and span["policy_id"] == run for span in spans or ())


def _writer_lies(w: _Writer, key: tuple[Any, ...], described: Described, deleted: Deleted) -> Iterator[Check]:
    """What is wrong with the episodes of one writer: gaps, doubles, order of times and versions, seeds, groups."""
    columns = {name: np.frombuffer(getattr(w, name), np.int64) for name in ("number", "seed", "ended", "version")}
    order = np.argsort(columns["number"], kind="stable")
    number, seed, ended, version = (column[order] for column in columns.values())
    present, times = np.unique(number, return_counts=True)
    for i in np.flatnonzero(times > 1).tolist():
        yield Check(f"{w.name}/{present[i]}", FALSE, f"it is there {times[i]} times; `selfplay repair` leaves one")
    yield from _gaps(w, present, described, deleted)
    if (np.diff(ended) < -SAME_CLOCK).any():
        described.lacks(w.run, TIMES)
        yield from _times(w.name, number, ended)
    known, at = version[version >= 0], number[version >= 0]
    for i in (np.flatnonzero(np.diff(known) < 0) + 1).tolist():
        reason = f"it was played by version {known[i]}, and {w.name}/{at[i - 1]}, sealed before, by {known[i - 1]}"
        yield Check(f"{w.name}/{at[i]}", FALSE, reason)
    settings = described.settings(key[0], (key[2] or 0) // WRITERS_PER_DRIVER)
    if w.game and settings is not None:
        yield from _seeds(w.name, key, number, seed, settings)
    if present[0] == 0 and len(number) == len(present) == present[-1] + 1:
        yield from _groups(w, key, settings, described)


def _gaps(w: _Writer, present: Array, described: Described, deleted: Deleted) -> Iterator[Check]:
    """Numbers begin with 0 and leave none out: what was lost when a writer died had not been given one, or the last.

    present: ascending.
    """
    for i in np.flatnonzero(np.diff(present, prepend=-1) != 1).tolist():
        number, before = int(present[i]), max(-1, int(present[i - 1]) if i else -1)
        if number < 0:
            yield Check(f"{w.name}/{number}", FALSE, "its number is below 0")
        elif deleted.holds(w.name, before + 1, number - 1):
            continue
        elif w.run in deleted.runs or (not w.linked and (before < 0 or deleted.repaired)):
            described.lacks(w.run, GAPS)
        else:
            which = f"episode {number - 1} is" if number - before == 2 else f"episodes {before + 1} to {number - 1} are"
            yield Check(w.title, FALSE, f"{which} missing, and later ones are there")


def _times(name: str, number: Array, ended: Array) -> Iterator[Check]:
    """Numbers are given when episodes end, by one process and its clock, which may have been set back meanwhile."""
    back = np.flatnonzero(np.diff(ended) < -OTHER_CLOCK)
    for i in back.tolist():
        late = i + 2 < len(ended) and ended[i + 2] < ended[i] - OTHER_CLOCK and (i == 0 or ended[i - 1] <= ended[i + 1])
        wrong, other = (i, i + 1) if late else (i + 1, i)
        word = "later than" if late else "before"
        hours = abs(int(ended[wrong]) - int(ended[other])) / 3.6e9
        reason = f"it ended {hours:,.1f} hours {word} {name}/{number[other]}, which the same writer sealed "
        yield Check(f"{name}/{number[wrong]}", FALSE, reason + ("after it" if late else "before it"))


def _seeds(name: str, key: tuple[Any, ...], number: Array, seed: Array, settings: dict[str, Any]) -> Iterator[Check]:
    """A player draws the seed of every game from a generator that follows from its run, its slot and its epoch.

    It has as many games under way as its settings say: the game that ends as its n-th was one of the first n of those
    that it began, and so many more. No two games have one seed.
    """
    found = _PLAYER.match(str(key[1]))
    try:
        begun, games = int(settings["run"]["seed"]), int(settings["selfplay"]["games"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    most, epoch = int(number[-1]) + 1 + 2 * games, key[2]
    bounded = 0 < games <= 10**5 and 0 < most <= len(number) + _MORE_SEEDS  # a stranger's numbers may be any
    if found is None or not bounded or begun < 0 or epoch is None or epoch < 0:
        return
    sequence = np.random.SeedSequence(player_seed(begun, key[1], epoch))
    drawn = np.random.Generator(np.random.PCG64(sequence)).integers(2**63, size=most)
    order = np.argsort(drawn)
    place = np.minimum(np.searchsorted(drawn[order], seed), most - 1)
    turn = order[place]
    for i in np.flatnonzero((drawn[turn] != seed) | (turn >= number + 2 * games)).tolist():
        yield Check(f"{name}/{number[i]}", FALSE, "its seed is none that its writer had drawn when it was sealed")
    _, first, which = np.unique(seed, return_index=True, return_inverse=True)
    for i in np.flatnonzero(number != number[first][which]).tolist():
        before = number[first[which[i]]]
        yield Check(f"{name}/{number[i]}", FALSE, f"it has the seed of {name}/{before}, and each is drawn once")


def _groups(w: _Writer, key: tuple[Any, ...], settings: dict[str, Any] | None, described: Described) -> Iterator[Check]:
    """All samples of a group are drawn and archived together, each as often as the first."""
    group, index = (np.frombuffer(one, np.int64) for one in (w.group, w.index))
    mine = np.flatnonzero(index >= 0)
    if not len(mine):
        return
    size = None
    sampled = np.frombuffer(w.sampled, np.int8)
    if sampled.any():
        try:
            size = int((settings or {})["generation"]["group"])
        except (KeyError, TypeError, ValueError, OverflowError):
            described.lacks(key[0], GROUP)
    order = mine[np.lexsort((index[mine], group[mine]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order][0] - 1))
    for some in np.split(order, starts[1:]):
        found, times = np.unique(index[some], return_counts=True)
        first = f"{w.name}/{w.number[int(some.min())]}"
        if found[-1] != len(found) - 1 or times.min() != times.max():
            yield Check(first, FALSE, f"of its group some of the samples 0 to {found[-1]} are missing, or there twice")
        elif size is not None and sampled[some[0]] and len(found) != size:
            yield Check(first, FALSE, f"its group has {len(found)} samples, and by the settings of its run {size}")


def _parents_lie(
    parents: list[tuple[str, str]], writers: Mapping[tuple[Any, ...], _Writer], deleted: Deleted
) -> Iterator[Check]:
    """An episode that one was made from is here, if its run is; of another corpus it may be."""
    runs = {key[0] for key in writers}
    there = defaultdict[str, set[int]](set)
    wanted = {parent.rpartition("/")[0] for _, parent in parents}
    for writer in writers.values():
        if writer.name in wanted:
            there[writer.name] = set(writer.number)
    for child, parent in parents:
        name, _, number = parent.rpartition("/")
        if parent == child:
            yield Check(child, FALSE, "it names itself as a parent")
        elif parent.split("/")[0] in runs - deleted.runs and not (
            number.isdecimal() and (int(number) in there[name] or deleted.holds(name, int(number), int(number)))
        ):
            yield Check(child, FALSE, f"it names the parent {parent}, which is not in the corpus, though its run is")


def _copies(scan: Scan, games: _Alike, anything: _Alike) -> Iterator[Check]:
    """Episodes that are another one under a new id: games of one run's policy with the same seed and steps, and
    episodes that were begun in the same microsecond and have the same content."""
    seeds = sorted({*games.suspects(), *anything.suspects()})
    if not seeds:
        return
    first: dict[Any, str] = {}
    told = set[str]()
    for batch in scan({name: pc.field(name) for name in EPISODES.names}, pc.field("seed").isin(pa.array(seeds))):
        names, runs, spans = (batch.column(name).to_pylist() for name in ("episode_id", "run_id", "policy_spans"))
        times = pc.fill_null(batch.column("started_at").cast(pa.int64()), 0).to_pylist()
        same_game, same = (_digests(batch, kept) for kept in (_GAME, _ANY))
        for i, name in enumerate(names):
            keys: list[Any] = [same[i]] if times[i] > 0 else []
            if _by_own_policy(runs[i], spans[i]):
                keys.append((runs[i], same_game[i]))
            others = {first.setdefault(key, name) for key in keys} - {name}
            if others and name not in told:
                told.add(name)
                yield Check(name, FALSE, f"it is episode {min(others)} again, under another name")


def _digests(batch: pa.RecordBatch, kept: tuple[str, ...]) -> list[str]:
    """A digest of some columns, an episode each."""
    columns = {field.name: pa.nulls(batch.num_rows, field.type) for field in EPISODES}
    columns |= {name: batch.column(name) for name in kept}
    columns["schema_version"] = pa.array([1] * batch.num_rows, pa.int32())
    return content_digests(columns)
