"""A corpus as a torch IterableDataset: games become training rows by replay, reasoning becomes tokens and masks.

    feed = corpus.to_torch(batch=512, seed=0, rank=rank, world=world)
    for batch in torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2): ...

Every batch of an epoch follows from (version of the corpus, arguments, epoch, number of workers) alone. The order is
shuffled in two stages, as files allow: the corpus is cut into chunks (row groups of its files), the chunks are permuted
and dealt out to ranks and workers, and rows are permuted within `mix` chunks at a time.

To go on later, keep `{"epoch": e, "batches": n}`, n the batches that the loader gave in that epoch, and hand it to
`load_state_dict` of a feed made in the same way, with as many workers: what comes is what would have come. Workers read
the files as Arrow, so they may be forked; on S3 say `multiprocessing_context="spawn"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.episode.rows import Rows, concatenate, take
from selfplay.episode.training import COLUMNS, TargetSettings, count_rows, rows_from
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.corpus.targets import Targets, one_config, one_game, targets_of
from selfplay.store.corpus.tokens import Sequences, count_sequences, sequences_from
from selfplay.store.table.snapshot import Snapshot, readable
from selfplay.store.table.table import EPISODES_TABLE

Array = np.ndarray[Any, Any]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Chunk:
    """A row group of a data file. path: below the episodes table."""

    path: str
    group: int


class Feed(IterableDataset[Batch]):  # type: ignore[misc]
    """Batches of one epoch of (a rank's share of) a corpus; `set_epoch` says of which.

    Of games (`kind` "game", one environment), for B decisions with A actions, values for the seat to act, in units of
    the game's largest utility:
      observation `[B, *input_shape]` float32 · policy `[B, A]` float32, sums to one · legal `[B, A]` bool
      value `[B]` float32 in [-1, 1], the weighted mean of outcome and search value · value_weight `[B]` float32
      z, q, z_weight, q_weight `[B]` float32: what it is made of; see `selfplay.episode.rows`
    Of reasoning, for B lines of turns of T tokens at most, padded with zeros at the end:
      input_ids `[B, T]` int64 · attention_mask `[B, T]` bool · loss_mask `[B, T]` bool
      logprobs `[B, T]` float32, nats, as sampled, zero where nothing was sampled · reward `[B]` float32, NaN: none
    """

    def __init__(
        self,
        corpus: Snapshot,
        kind: str = "game",
        env_id: str | None = None,
        where: pc.Expression | None = None,
        batch: int = 512,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        even: bool = True,
        mix: int = 4,
        targets: TargetSettings | None = None,
    ) -> None:
        """env_id: which games; None: the only ones there. where: over the columns of `episodes`, besides `trainable`.

        rank, world: this process of so many. even: every rank gives as many batches as the one with the fewest.
        mix: chunks whose rows are shuffled together, and in memory. targets: of games; None: as the learner had of each
        game's run, under the configuration by which it was played.
        """
        if kind not in ("game", "reasoning"):
            raise UserError(f"episodes of kind {kind!r} cannot be fed; game and reasoning can")
        if not 0 <= rank < world or batch < 1 or mix < 1:
            raise UserError(f"rank {rank} of {world}, batch {batch} or mix {mix} is out of range")
        self.uri, self.version = corpus.uri, corpus.version
        self.batch, self.seed, self.shuffle, self.mix = batch, seed, shuffle, mix
        self.rank, self.world, self.even = rank, world, even
        self.epoch, self._skip, self._given = 0, 0, 0
        self._kind, self._targets = kind, targets
        self._where = (pc.field("kind") == kind) & pc.field("trainable")
        if kind == "game":
            env_id, spec = one_game(corpus, env_id, "a feed of games")
            self._env, self._kept = registry.pack(spec), Targets() if targets else targets_of(corpus)
        if env_id is not None:
            self._where &= pc.field("env_id") == env_id
        if where is not None:
            self._where &= where
        self.chunks = _chunks(corpus, kind)
        self._counts: dict[Chunk, int] | None = None  # rows of each chunk
        self._schema, self._files = corpus.dataset.schema, {file["path"]: file for file in corpus.files()}

    def set_epoch(self, epoch: int) -> None:
        """What comes next is this epoch: from its beginning, or from where `load_state_dict` has put it.

        Workers of a DataLoader that persist do not hear of it.
        """
        if epoch != self.epoch:
            self.epoch, self._skip, self._given = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Where this process stands, without workers; with a DataLoader's workers count what the loader gave."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """What comes next is what follows `state["batches"]` batches of epoch `state["epoch"]`."""
        self.epoch, self._skip, self._given = int(state["epoch"]), int(state["batches"]), int(state["batches"])

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        reader, epoch, skip, end = _Reader(self), self.epoch, self._skip, None
        if (self.even and self.world > 1) or (skip and workers > 1):
            worker, skip, end = self._share(reader, epoch, skip, worker, workers)
        self._given = self._skip
        made = self._batches(reader, self._dealt(epoch, self.rank, worker, workers), epoch, skip)
        for rows in made if end is None else islice(made, max(0, end - skip)):
            self._given += 1
            yield reader.collate(rows)
        self._skip = 0

    def _share(self, reader: _Reader, epoch: int, skip: int, worker: int, workers: int) -> tuple[int, int, int]:
        """Whose share this worker takes over, how many of its batches are among the first `skip`, and how many it has.

        A loader that goes on asks its first worker first, so that one takes the share of the worker whose turn it is.
        """
        if self._counts is None:
            self._counts = {chunk: reader.count([chunk]) for chunk in self.chunks}
        counts = self._counts

        def batches(rank: int) -> list[int]:
            rows = [sum(counts[chunk] for chunk in self._dealt(epoch, rank, w, workers)) for w in range(workers)]
            return [-(-count // self.batch) for count in rows]

        mine = batches(self.rank)
        end = min(sum(batches(rank)) for rank in range(self.world)) if self.even else sum(mine)
        given, most = _turns(mine, min(skip, end)), _turns(mine, end)
        turn = min((w for w in range(workers) if given[w] < most[w]), key=lambda w: (given[w], w), default=0)
        share = (worker + turn) % workers
        return share, given[share], most[share]

    def _dealt(self, epoch: int, rank: int, worker: int, workers: int) -> list[Chunk]:
        """The chunks of one worker of one rank, in the order of this epoch."""
        order = np.arange(len(self.chunks))
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        return [self.chunks[i] for i in order[rank :: self.world][worker::workers]]

    def _batches(self, reader: _Reader, chunks: list[Chunk], epoch: int, skip: int) -> Iterator[Any]:
        """Parts of `batch` rows, the last one smaller; the first `skip` are not made."""
        left: list[Any] = []
        held, behind = 0, skip * self.batch
        for first in range(0, len(chunks), self.mix):
            group = chunks[first : first + self.mix]
            if behind:
                count = reader.count(group)
                if count <= behind:
                    behind -= count
                    continue
            rows = reader.read(group)
            count = len(rows)
            order = np.arange(count)
            if self.shuffle:
                place = self.chunks.index(group[0])
                np.random.default_rng([self.seed, epoch, place]).shuffle(order)
            order, behind = order[behind:], 0
            while held + len(order) >= self.batch:
                now, order = order[: self.batch - held], order[self.batch - held :]
                yield reader.join([*left, reader.take(rows, now)])
                left, held = [], 0
            if len(order):
                left.append(reader.take(rows, order))
                held += len(order)
        if left:
            yield reader.join(left)


def _chunks(corpus: Snapshot, kind: str) -> list[Chunk]:
    """All row groups with episodes of a kind, by path."""
    kinds = {file["path"]: file["partition.kind"] for file in corpus.files()}
    return [
        Chunk(path, group)
        for path, fragment in sorted(corpus.fragments().items())
        if kinds[path] == kind
        for group in range(fragment.num_row_groups)
    ]


def _turns(batches: Sequence[int], count: int) -> list[int]:
    """How many of the first `count` batches each worker gave; they take turns, who has none left is passed over."""
    given = [0] * len(batches)
    while count > 0:
        able = [w for w, most in enumerate(batches) if given[w] < most]
        if not able:
            break
        rounds = min(min(batches[w] - given[w] for w in able), count // len(able))
        for w in able:
            given[w] += rounds
        count -= rounds * len(able)
        if rounds == 0:
            for w in able[:count]:
                given[w] += 1
            break
    return given


class _Reader:
    """Chunks to rows, in the process that needs them. The log is not read again: what reads it cannot be forked."""

    def __init__(self, feed: Feed) -> None:
        self._where, self._schema, self._files = feed._where, feed._schema, feed._files
        self._place = storage.arrow_filesystem(storage.join(feed.uri, EPISODES_TABLE))
        self.take: Callable[[Any, Array], Any]
        self.join: Callable[[list[Any]], Any]
        self.collate: Callable[[Any], Batch]
        if feed._kind == "reasoning":
            self._columns: list[str] = ["reasoning", "verdicts", "returns"]
            self._rows: Callable[[pa.Table], Any] = sequences_from
            self._count: Callable[[pa.Table], int] = count_sequences
            self.take, self.join, self.collate = Sequences.take, Sequences.join, _text
            return
        game, kept, fixed = load(registry.unpack(feed._env)), feed._kept, feed._targets

        def rows(table: pa.Table) -> Rows:
            parts = []
            for part in one_config(table):
                run_id, digest = (part.column(name)[0].as_py() for name in ("run_id", "config_digest"))
                settings = fixed or kept.of(run_id, digest, "; give targets=TargetSettings(…)")
                parts.append(rows_from(game, part.combine_chunks(), settings))
            return parts[0] if len(parts) == 1 else concatenate(parts)

        self._columns, self._rows, self._count = [*COLUMNS, "run_id", "config_digest"], rows, count_rows
        self.take, self.join = take, concatenate
        self.collate = lambda rows: _decisions(rows, game.num_actions)

    def _table(self, chunk: Chunk) -> pa.Table:
        file = self._files[chunk.path]
        part = (pc.field("kind") == file["partition.kind"]) & (pc.field("run_id") == file["partition.run_id"])
        whole = pads.ParquetFileFormat().make_fragment(chunk.path, self._place, part)
        with readable(chunk.path):
            group = whole.subset(row_group_ids=[chunk.group])
            return group.to_table(schema=self._schema, columns=self._columns, filter=self._where)

    def count(self, chunks: Sequence[Chunk]) -> int:
        """Rows of some chunks, without replaying anything."""
        return sum(self._count(self._table(chunk)) for chunk in chunks)

    def read(self, chunks: Sequence[Chunk]) -> Any:
        """The rows of some chunks, in order; None where there is none."""
        tables = [table for chunk in chunks if (table := self._table(chunk)).num_rows]
        return self.join([self._rows(table) for table in tables]) if tables else ()


def _decisions(rows: Rows, num_actions: int) -> Batch:
    count = len(rows)
    policy, legal = np.zeros((count, num_actions), np.float32), np.zeros((count, num_actions), bool)
    at = np.repeat(np.arange(count), np.diff(rows.offsets))
    policy[at, rows.actions], legal[at, rows.actions] = rows.targets, True
    weight = rows.z_weight + rows.q_weight
    value = (rows.z_weight * rows.z + rows.q_weight * rows.q) / np.maximum(weight, 1e-9)
    arrays = {
        "observation": rows.observations,
        "policy": policy,
        "legal": legal,
        "value": value.astype(np.float32),
        "value_weight": weight.astype(np.float32),
        "z": rows.z,
        "q": rows.q,
        "z_weight": rows.z_weight,
        "q_weight": rows.q_weight,
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _text(rows: Sequences) -> Batch:
    return {name: torch.from_numpy(array) for name, array in rows.padded().items()}
