"""What a table holds by those files of its log that are whole, and which blocks it lacks: for repair and verification.

The log is read here without delta-rs, which opens no table whose log is damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import log
from selfplay.store.table.counters import WRITERS_PER_DRIVER, pack, unpack
from selfplay.store.table.drivers import NOT_COUNTED
from selfplay.store.table.limits import refuse_bomb, refuse_bombs
from selfplay.store.table.table import open_table
from selfplay.store.table.write import MADE_BY, stats_of

_BLOCK = re.compile(r"^kind=(?P<kind>[a-z]+)/run_id=(?P<run_id>[^/]+)/(?P<sha256>[0-9a-f]{64})\.parquet$")
_NAMED = re.compile(r"([0-9a-f]{64})\.parquet$")
#: Episodes of one file that are believed to be there because the log says so; of more the file itself is read.
_MOST_COUNTED = 2**20
#: Files that are read side by side.
_AT_ONCE = 8


@dataclass(frozen=True)
class Added:
    """A data file of a table. size: bytes. partition: values of its partition columns. stats: as in the log."""

    size: int
    partition: dict[str, str]
    stats: dict[str, Any]

    @property
    def rows(self) -> int:
        return int(self.stats.get("numRecords", 0))

    @property
    def range(self) -> str:
        """Which episodes, for people."""
        low, high = self.stats.get("minValues", {}), self.stats.get("maxValues", {})
        if "slot" not in low or (low["slot"], low["epoch"]) != (high["slot"], high["epoch"]):
            return "of several writers" if "slot" in low else "of a side table"
        return f"slot {low['slot']}, epoch {low['epoch']}, numbers {low['number']} to {high['number']}"

    @property
    def writers(self) -> list[dict[str, Any]] | None:
        """Which episodes, as the table of deletions has them; None where the log does not say."""
        low, high = self.stats.get("minValues", {}), self.stats.get("maxValues", {})
        one = "slot" in low and (low["slot"], low["epoch"]) == (high["slot"], high["epoch"])
        if not one or high["number"] - low["number"] + 1 != self.rows:
            return None
        writer = {"slot": low["slot"], "epoch": low["epoch"]}
        return [{**writer, "first": low["number"], "last": high["number"], "head": None}]


@dataclass
class State:
    """What a log says that is whole.

    described: whether it has the table's schema. files: of the newest version, by path. counters: of its `txn` actions.
    named: every path that was ever added, as far as the log reaches back. entries: how many were read.
    """

    described: bool = False
    files: dict[str, Added] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    entries: int = 0

    def take(self, action: dict[str, Any]) -> None:
        if action.get("metaData"):
            self.described = True
        if add := action.get("add"):
            self.named.add(add["path"])
            self.files[add["path"]] = Added(
                add["size"], dict(add["partitionValues"] or {}), json.loads(add.get("stats") or "{}")
            )
        if remove := action.get("remove"):
            self.named.add(remove["path"])
            self.files.pop(remove["path"], None)
        if txn := action.get("txn"):
            self.counters[txn["appId"]] = txn["version"]

    def counters_after(self, run_id: str, blocks: Sequence[Orphan]) -> dict[str, int]:
        """The counters of a run and its slots when these blocks, in their order, are committed next."""
        moved: dict[str, int] = {}
        for block in blocks:
            app = f"{run_id}/{block.slot}"
            epoch, number = unpack(moved.get(app, self.counters.get(app)))
            if block.epoch > epoch or (block.epoch == epoch and block.newest):
                moved[app] = pack(block.epoch, number + 1 if block.epoch == epoch else 0)
        driver, commits = unpack(self.counters.get(run_id))
        newest = max(block.epoch for block in blocks) // WRITERS_PER_DRIVER
        moved[run_id] = pack(newest, 0) if newest > driver else pack(driver, commits + 1)
        return moved


def replay(table: str, bad: set[str]) -> State:
    """The state of a table by all files of its log but the bad ones: the newest checkpoint, and what came after it."""
    entries, checkpoints = log.versions(table)
    state = State()
    start = max((v for v in checkpoints if log.checkpoint_name(v) not in bad), default=-1)
    for version in sorted(entries):
        if log.entry_name(version) in bad:
            continue
        state.entries += 1
        actions = log.actions(storage.read(log.place(table, log.entry_name(version))))
        if version <= start:
            state.named.update(a[key]["path"] for a in actions for key in ("add", "remove") if a.get(key))
            continue
        if version > start >= 0 and not state.described:
            _take_checkpoint(state, table, start)
        for action in actions:
            state.take(action)
    if start >= 0 and not state.described:
        _take_checkpoint(state, table, start)
    return state


def _take_checkpoint(state: State, table: str, version: int) -> None:
    data = storage.read(log.place(table, log.checkpoint_name(version)))
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    for row in sorted(rows, key=lambda row: row.get("remove") is None):  # adds count
        state.take({key: value for key, value in row.items() if value})


@dataclass(frozen=True)
class Orphan:
    """A whole block that was written and is in no entry of the log. first, last: episode numbers, inclusive.

    newest: nothing that its writer sealed later is in the log. acknowledged: something that its writer sealed later is
    there, and blocks are committed in order: so this one was, too, and the log has lost it.
    """

    path: str
    size: int
    kind: str
    run_id: str
    slot: str
    epoch: int
    first: int
    last: int
    rows: int
    stats: str
    newest: bool = True
    acknowledged: bool = False

    @property
    def range(self) -> str:
        """Which episodes, as `Added` says it."""
        return f"slot {self.slot}, epoch {self.epoch}, numbers {self.first} to {self.last}"

    def action(self) -> AddAction:
        """What commits it."""
        partition: dict[str, str | None] = {"kind": self.kind, "run_id": self.run_id}
        return AddAction(self.path, self.size, partition, int(time.time() * 1000), True, self.stats)


def unnamed(table: str, state: State) -> list[storage.Entry]:
    """Blocks in a table's folder that are in no entry of its log, whole or not."""
    prefix = storage.normalise(table) + "/"
    found = (entry for entry in storage.entries(table) if _BLOCK.match(entry.uri.removeprefix(prefix)))
    return [entry for entry in found if entry.uri.removeprefix(prefix) not in state.named]


def orphan(table: str, entry: storage.Entry) -> Orphan | None:
    """A file as a block; None if it is damaged, or not a writer's but a compactor's. Raises `Oversized`."""
    path = entry.uri.removeprefix(storage.normalise(table) + "/")
    match = _BLOCK.match(path)
    data = storage.read(entry.uri)
    if match is None or hashlib.sha256(data).hexdigest() != match["sha256"]:
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if MADE_BY in (file.schema_arrow.metadata or {}):
            return None
        refuse_bomb(path, file.metadata)
        rows = file.read()
    except pa.ArrowException:
        return None
    if not {"slot", "epoch", "number"} <= set(rows.column_names) or not rows.num_rows:
        return None
    slots, epochs = pc.unique(rows.column("slot")).to_pylist(), pc.unique(rows.column("epoch")).to_pylist()
    if len(slots) != 1 or len(epochs) != 1:
        return None
    ends = pc.min_max(rows.column("number")).as_py()
    if ends["max"] - ends["min"] + 1 != rows.num_rows:
        return None  # a writer seals its episodes one number after the other
    return Orphan(
        path, len(data), match["kind"], match["run_id"], slots[0], epochs[0], ends["min"], ends["max"],
        rows.num_rows, stats_of(rows),
    )  # fmt: skip


def missing_blocks(table: str, state: State, damaged: bool) -> tuple[list[Orphan], list[Orphan]]:
    """Blocks to commit again, in order of slot, epoch and number; and those that must be left alone, because one that
    comes before them is missing.

    damaged: the log has lost entries: any block may be one that was acknowledged. Otherwise a block whose writer was
    replaced was never committed, and one that is older than all that the table holds of its writer was deleted with its
    run, if the log does not reach back to that; neither is to be committed. Nor is one beyond the end that its driver,
    or the next one, has written down in the table `closings`.
    """
    ends = _ends(table.rsplit("/", 1)[0])
    entries = unnamed(table, state)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [block for block in pool.map(lambda entry: orphan(table, entry), entries) if block is not None]
    covered = _Coverage(table, state)
    trimmed = log.given_back(table) > 0 or min(log.versions(table)[0], default=0) > 0
    again: list[Orphan] = []
    left: list[Orphan] = []
    for block in sorted(found, key=lambda b: (b.run_id, b.slot, b.epoch, b.first)):
        if covered.has(block) or ends.before(block):
            continue
        start, end = covered.ends(block)
        acknowledged = (start if trimmed else -1) < block.first < end
        driver, _ = unpack(state.counters.get(block.run_id))
        newest, _ = unpack(state.counters.get(f"{block.run_id}/{block.slot}"))
        if not damaged and not acknowledged:
            if driver > block.epoch // WRITERS_PER_DRIVER or newest > block.epoch:
                continue
            if trimmed and (block.first < end or (end == 0 and newest == block.epoch)):
                continue  # it was committed, and its run was deleted since
            if block.first != end:
                left.append(block)
                continue
        again.append(replace(block, newest=block.first >= end, acknowledged=acknowledged))
        covered.add(block)
    return again, left


@dataclass(frozen=True)
class _Ends:
    """What the table `closings` says. episodes: how many each writer (run, slot, epoch) had archived. drivers: those
    (run, epoch) whose closing was counted; of a writer that it does not name, nothing was."""

    episodes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    drivers: frozenset[tuple[str, int]] = frozenset()

    def before(self, block: Orphan) -> bool:
        """Whether the writer had ended before the block, which was never archived then."""
        counted = (block.run_id, block.epoch // WRITERS_PER_DRIVER) in self.drivers
        most = self.episodes.get((block.run_id, block.slot, block.epoch), 0 if counted else None)
        return most is not None and block.first >= most


def _ends(corpus_uri: str) -> _Ends:
    """Nothing, where the table cannot be read."""
    place = storage.join(corpus_uri, "closings")
    try:
        table = open_table(place)
        dataset = table.to_pyarrow_dataset(filesystem=storage.arrow_filesystem(place))
        refuse_bombs(dataset.get_fragments())
        rows = dataset.to_table(columns=["run_id", "epoch", "how", "writers"]).to_pylist()
    except (TableNotFoundError, UserError, pa.ArrowException, OSError):
        return _Ends()
    told = [(row["run_id"], one) for row in rows for one in row["writers"] or () if one and one["episodes"] is not None]
    return _Ends(
        {(run_id, one["slot"], one["epoch"]): one["episodes"] for run_id, one in told},
        frozenset((row["run_id"], row["epoch"]) for row in rows if row["how"] != NOT_COUNTED),
    )


class _Coverage:
    """Which episode numbers of each run, slot and epoch a table holds."""

    def __init__(self, table: str, state: State) -> None:
        self._table, self._state = table, state
        self._runs: dict[str, dict[tuple[str, int], set[int]]] = {}

    def has(self, block: Orphan) -> bool:
        """Whether any of its episodes is there."""
        mine = self._of(block.run_id).get((block.slot, block.epoch), set())
        return not mine.isdisjoint(range(block.first, block.last + 1))

    def ends(self, block: Orphan) -> tuple[int, int]:
        """The first number of the block's slot and epoch, and the one that comes next; both 0 where there is none."""
        numbers = self._of(block.run_id).get((block.slot, block.epoch), {-1})
        return max(0, min(numbers)), max(numbers) + 1

    def add(self, block: Orphan) -> None:
        numbers = self._of(block.run_id).setdefault((block.slot, block.epoch), set())
        numbers.update(range(block.first, block.last + 1))

    def _of(self, run_id: str) -> dict[tuple[str, int], set[int]]:
        if run_id not in self._runs:
            found = self._runs[run_id] = {}
            for path, added in self._state.files.items():
                if added.partition.get("run_id") == run_id:
                    for slot, epoch, number in self._numbers(path, added):
                        found.setdefault((slot, epoch), set()).add(number)
        return self._runs[run_id]

    def _numbers(self, path: str, added: Added) -> Iterator[tuple[str, int, int]]:
        low, high = added.stats.get("minValues", {}), added.stats.get("maxValues", {})
        one = "slot" in low and (low["slot"], low["epoch"]) == (high["slot"], high["epoch"])
        if one and high["number"] - low["number"] + 1 == added.rows <= _MOST_COUNTED:
            yield from ((low["slot"], low["epoch"], number) for number in range(low["number"], high["number"] + 1))
            return
        try:
            data = storage.read(storage.join(self._table, path))
            rows = pq.read_table(pa.BufferReader(data), columns=["slot", "epoch", "number"]).to_pydict()
        except (pa.ArrowException, OSError):
            return  # damaged, and named when files are looked at
        yield from zip(rows["slot"], rows["epoch"], rows["number"], strict=True)


def damaged_files(table: str, state: State) -> Iterator[tuple[str, str]]:
    """Data files of the newest version that are missing or damaged, each with what is wrong with it."""

    def look(path: str) -> tuple[str, str | None]:
        try:
            data = storage.read(storage.join(table, path))
        except FileNotFoundError:
            return path, "the file is missing"
        named = _NAMED.search(path)
        if named is not None and hashlib.sha256(data).hexdigest() == named[1]:
            return path, None  # whatever size the log states
        if len(data) != state.files[path].size:
            return path, f"the file has {len(data):,} bytes instead of {state.files[path].size:,}"
        if named is not None:
            return path, "the file was changed after it was written: its sha256 is not its name"
        return path, None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from ((path, reason) for path, reason in pool.map(look, sorted(state.files)) if reason is not None)
