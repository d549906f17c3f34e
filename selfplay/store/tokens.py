"""From archived reasoning to token sequences: what a language model was shown and wrote, never tokenised again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Line:
    """The tokens of one line of turns, from its first to its last: `[T]` each.

    ids: int64. loss_mask: bool, tokens that a learner may train on. logprobs: float32, nats, 0 where nothing was
    sampled. reward: of the seat that wrote the last turn; NaN where nobody could judge it.
    """

    ids: Array
    loss_mask: Array
    logprobs: Array
    reward: float


@dataclass(frozen=True)
class Sequences:
    """Some lines, in order."""

    lines: tuple[Line, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, index: Array) -> Sequences:
        """Those at `index` (`[K]` ints), in that order."""
        return Sequences(tuple(self.lines[i] for i in index))

    @staticmethod
    def join(parts: Sequence[Sequences]) -> Sequences:
        """All lines of all parts, in order."""
        return Sequences(tuple(line for part in parts for line in part.lines))

    def padded(self) -> dict[str, Array]:
        """`[B, T]` arrays of the longest line's length, zeros at the end; reward `[B]`."""
        shape = (len(self.lines), max((len(line.ids) for line in self.lines), default=0))
        out: dict[str, Array] = {
            "input_ids": np.zeros(shape, np.int64),
            "attention_mask": np.zeros(shape, bool),
            "loss_mask": np.zeros(shape, bool),
            "logprobs": np.zeros(shape, np.float32),
        }
        for row, line in enumerate(self.lines):
            end = len(line.ids)
            out["input_ids"][row, :end], out["attention_mask"][row, :end] = line.ids, True
            out["loss_mask"][row, :end], out["logprobs"][row, :end] = line.loss_mask, line.logprobs
        out["reward"] = np.array([line.reward for line in self.lines], np.float32)
        return out


def sequences_from(episodes: pa.RecordBatch | pa.Table) -> Sequences:
    """The lines of reasoning episodes (columns reasoning, verdicts, returns), in order.

    A line ends in a turn that no other turn continues, and begins where its first ancestor's context does. Lines
    without a token to train on are left out.
    """
    lines = []
    columns = zip(*(episodes.column(name).to_pylist() for name in ("reasoning", "verdicts", "returns")), strict=True)
    for reasoning, verdicts, returns in columns:
        turns = reasoning["turns"]
        for end in _ends(turns):
            lines.append(_line(turns, end, _reward(turns[end]["seat"], verdicts, returns)))
    return Sequences(tuple(lines))


def count_sequences(episodes: pa.RecordBatch | pa.Table) -> int:
    """How many lines `sequences_from` would give."""
    return sum(len(_ends(reasoning["turns"])) for reasoning in episodes.column("reasoning").to_pylist())


def _ends(turns: list[dict[str, Any]]) -> list[int]:
    continued, teaches = {turn["parent"] for turn in turns}, [any(turn["loss_mask"] or ()) for turn in turns]
    ends = [i for i in range(len(turns)) if i not in continued]
    return [end for end in ends if any(teaches[i] for i in _path(turns, end))]


def _path(turns: list[dict[str, Any]], end: int) -> list[int]:
    """Indices from the first ancestor to `end`. Raises `ValueError` where a parent does not come before its child."""
    path = [end]
    while (parent := turns[path[-1]]["parent"]) is not None:
        if not 0 <= parent < path[-1]:
            raise ValueError(f"turn {path[-1]} continues turn {parent}, which does not come before it")
        path.append(parent)
    return path[::-1]


def _line(turns: list[dict[str, Any]], end: int, reward: float) -> Line:
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float] = []
    for i in _path(turns, end):
        turn = turns[i]
        suffix, own = turn["suffix_ids"] or [], turn["token_ids"] or []
        ids += [*suffix, *own]
        mask += [*([False] * len(suffix)), *(turn["loss_mask"] or [False] * len(own))]
        logprobs += [*([0.0] * len(suffix)), *(turn["logprobs"] or [0.0] * len(own))]
    return Line(np.array(ids, np.int64), np.array(mask, bool), np.array(logprobs, np.float32), reward)


def _reward(seat: int, verdicts: list[dict[str, Any]] | None, returns: list[float] | None) -> float:
    for verdict in verdicts or ():
        if verdict["seat"] == seat:
            return float("nan") if verdict["reward"] is None else float(verdict["reward"])
    return float("nan") if returns is None or seat >= len(returns) else float(returns[seat])
