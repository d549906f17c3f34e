"""What a language model learns from: archived episodes as lines of tokens with what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from selfplay.store.corpus.tokens import sequences_from

Array = np.ndarray[Any, Any]

#: A micro-batch of at least so many tokens ends before a line that is so many times as long as its first.
_WORTH_IT, _UNLIKE = 2048, 1.25


@dataclass
class Lessons:
    """N lines of tokens, each of one seat of one episode.

    ids: `[T]` int64 each. tokens: named `[T]` arrays each, such as "mask" (bool, tokens to train) and "behaviour"
    (float32, nats, as sampled). numbers: named `[N]` arrays, such as "reward" (float64, of the seat that wrote; NaN:
    unverifiable or not trainable), "accepted" (bool). names: named lists of N texts, such as "group", "problem".
    """

    ids: list[Array] = field(default_factory=list)
    tokens: dict[str, list[Array]] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Array) -> Lessons:
        """Those at `index` (`[K]` ints), in that order."""
        places = np.asarray(index).tolist()
        return Lessons(
            [self.ids[i] for i in places],
            {name: [values[i] for i in places] for name, values in self.tokens.items()},
            {name: values[places] for name, values in self.numbers.items()},
            {name: [values[i] for i in places] for name, values in self.names.items()},
        )

    def plus(self, more: Lessons) -> Lessons:
        """These and more, which know the same of each line."""
        if not len(self):
            return more
        return Lessons(
            self.ids + more.ids,
            {name: values + more.tokens[name] for name, values in self.tokens.items()},
            {name: np.concatenate([values, more.numbers[name]]) for name, values in self.numbers.items()},
            {name: values + more.names[name] for name, values in self.names.items()},
        )

    def lengths(self) -> Array:
        """`[N]` tokens of each line."""
        return np.array([len(ids) for ids in self.ids], np.int64)

    def micro_batches(self, most_tokens: int) -> Iterator[tuple[Array, dict[str, Tensor]]]:
        """(places `[B]`, batch) pairs that hold all lines, the like-long together, few padded tokens each.

        A batch has "ids" and all `tokens`, `[B, T]` padded with 0, and all floating `numbers`, `[B]` float32.
        """
        lengths = self.lengths()
        order = np.argsort(lengths, kind="stable")
        first = 0
        while first < len(order):
            # lengths rise, so the last of a batch is its longest
            end, shortest = first + 1, lengths[order[first]]
            while end < len(order) and (end + 1 - first) * lengths[order[end]] <= most_tokens:
                if lengths[order[end]] > _UNLIKE * shortest and (end - first) * shortest >= _WORTH_IT:
                    break
                end += 1
            places = order[first:end]
            yield places, self._padded(places, int(lengths[places[-1]]))
            first = end

    def _padded(self, places: Array, width: int) -> dict[str, Tensor]:
        columns = {"ids": self.ids, **self.tokens}
        batch: dict[str, Tensor] = {}
        for name, lines in columns.items():
            out = np.zeros((len(places), width), lines[places[0]].dtype)
            for row, place in enumerate(places.tolist()):
                out[row, : len(lines[place])] = lines[place]
            batch[name] = torch.from_numpy(out)
        for name, values in self.numbers.items():
            if values.dtype.kind == "f":
                batch[name] = torch.from_numpy(values[places].astype(np.float32))
        return batch


#: Columns of episodes that `lessons_from` reads.
COLUMNS = ("episode_id", "origin", "status", "trainable", "env_id", "reasoning", "verdicts", "returns")


def lessons_from(episodes: pa.Table | pa.RecordBatch) -> Lessons:
    """The lines of reasoning episodes, ordered by group, place in the group and seat: the same whoever wrote first."""
    lines = sequences_from(episodes).lines
    rows = [line.row for line in lines]
    plain = {name: episodes.column(name).to_pylist() for name in ("episode_id", "origin", "status", "env_id")}
    trainable = episodes.column("trainable").to_pylist()
    accepted = {
        (row, verdict["seat"])
        for row, verdicts in enumerate(episodes.column("verdicts").to_pylist())
        for verdict in verdicts or ()
        if verdict["state"] == "accepted" and trainable[row]
    }
    reasoning = _columns(episodes, ("group_id", "sample_index", "difficulty", "problem_digest", "problem_seed"))
    order = sorted(
        range(len(lines)),
        key=lambda i: (reasoning["group_id"][rows[i]], reasoning["sample_index"][rows[i]], lines[i].seat),
    )
    return Lessons(
        ids=[lines[i].ids for i in order],
        tokens={
            "mask": [lines[i].loss_mask for i in order],
            "behaviour": [lines[i].logprobs for i in order],
        },
        numbers={
            "reward": np.array([lines[i].reward if trainable[rows[i]] else np.nan for i in order], np.float64),
            "accepted": np.array([(rows[i], lines[i].seat) in accepted for i in order], bool),
            "seat": np.array([lines[i].seat for i in order], np.int64),
            "level": np.array([reasoning["difficulty"][rows[i]] for i in order], np.float64),
            "cut": np.array([lines[i].cut for i in order], bool),
            "length": np.array([int(lines[i].loss_mask.sum()) for i in order], np.int64),
        },
        names={
            "group": [reasoning["group_id"][rows[i]] for i in order],
            "problem": [reasoning["problem_digest"][rows[i]] for i in order],
            "episode": [plain["episode_id"][rows[i]] for i in order],
            "env": [plain["env_id"][rows[i]] for i in order],
        },
    )


def _columns(episodes: pa.Table | pa.RecordBatch, names: tuple[str, ...]) -> dict[str, list[Any]]:
    column = episodes.column("reasoning")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return {name: column.field(name).to_pylist() for name in names}
