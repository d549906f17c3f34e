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
    sampled. reward: of the seat that the line is for; NaN where nobody could judge it. row: of the episode among those
    read together. seat: whose line it is. cut: its last turn ended by a limit.
    """

    ids: Array
    loss_mask: Array
    logprobs: Array
    reward: float
    row: int = 0
    seat: int = 0
    cut: bool = False


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

    A line ends in a turn that no other turn continues, and begins where its first ancestor's context does. It is of one
    seat: where several wrote turns of it that may be learned from, each has the line for itself, with its own mask and
    reward.
    """
    lines = []
    columns = zip(*(episodes.column(name).to_pylist() for name in ("reasoning", "verdicts", "returns")), strict=True)
    for row, (reasoning, verdicts, returns) in enumerate(columns):
        turns = reasoning["turns"]
        for path, seat in _lines(turns):
            lines.append(_line([turns[i] for i in path], seat, _reward(seat, verdicts, returns), row))
    return Sequences(tuple(lines))


def count_sequences(episodes: pa.RecordBatch | pa.Table) -> int:
    """How many lines `sequences_from` would give."""
    return sum(len(_lines(reasoning["turns"])) for reasoning in episodes.column("reasoning").to_pylist())


def _lines(turns: list[dict[str, Any]]) -> list[tuple[list[int], int]]:
    """(indices of the turns of a line, seat) of every line that teaches the seat something."""
    continued, teaches = {turn["parent"] for turn in turns}, [any(turn["loss_mask"] or ()) for turn in turns]
    found = []
    for end in range(len(turns)):
        if end not in continued:
            path = _path(turns, end)
            found += [(path, seat) for seat in sorted({turns[i]["seat"] for i in path if teaches[i]})]
    return found


def _path(turns: list[dict[str, Any]], end: int) -> list[int]:
    """Indices from the first ancestor to `end`. Raises `ValueError` where a parent does not come before its child."""
    path = [end]
    while (parent := turns[path[-1]]["parent"]) is not None:
        if not 0 <= parent < path[-1]:
            raise ValueError(f"turn {path[-1]} continues turn {parent}, which does not come before it")
        path.append(parent)
    return path[::-1]


def _line(turns: list[dict[str, Any]], seat: int, reward: float, row: int) -> Line:
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float | None] = []
    for turn in turns:
        suffix, own = turn["suffix_ids"] or [], turn["token_ids"] or []
        learned = (turn["loss_mask"] if turn["seat"] == seat else None) or [False] * len(own)
        ids += [*suffix, *own]
        mask += [*([False] * len(suffix)), *learned]
        logprobs += [*([None] * len(suffix)), *(turn["logprobs"] or [None] * len(own))]
    sampled = np.nan_to_num(np.array(logprobs, np.float32), nan=0.0, neginf=0.0)  # zero where nothing was sampled
    cut = turns[-1]["finish_reason"] == "length"
    return Line(np.array(ids, np.int64), np.array(mask, bool), sampled, reward, row, seat, cut)


def _reward(seat: int, verdicts: list[dict[str, Any]] | None, returns: list[float] | None) -> float:
    """NaN where nobody could judge the seat, or where several did."""
    given = [verdict for verdict in verdicts or () if verdict["seat"] == seat]
    if given:
        (one, *others) = given
        sure = not others and one["reward"] is not None and one["error"] is None
        return float(one["reward"]) if sure else float("nan")
    return float("nan") if returns is None or seat >= len(returns) else float(returns[seat])
