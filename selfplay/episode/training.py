"""From archived games to training rows: every position is rebuilt by replay, every target from what the search stored.

The learner has no other way to see a game than the row that was archived, so what it learns is what anybody who reads
the corpus can compute again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.environments.game import Game
from selfplay.episode.rows import Rows, ragged
from selfplay.episode.schema import UNITS
from selfplay.episode.targets import gumbel_targets, visit_targets
from selfplay.errors import UserError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TargetSettings:
    """How archived decisions become targets.

    algorithm: "gumbel" (improved policy) or "puct" (visit shares); c_visit, c_scale: see `selfplay.search.config`.
    z_weight, q_weight: of the outcome and of the search value in the value target.
    truncated_weight: factor of z_weight in games cut by the ply limit. They have no outcome (least of all a draw), so
      their last search value stands in for it, as a search value.
    """

    algorithm: str
    c_visit: float
    c_scale: float
    z_weight: float
    q_weight: float
    truncated_weight: float

    def __post_init__(self) -> None:
        if self.algorithm not in ("gumbel", "puct"):
            name = str(self.algorithm)[:40]
            raise UserError(f"searches by {name!r} cannot be learned from; known are gumbel and puct")


#: The columns that `rows_from` reads.
COLUMNS = ("status", "trainable", "returns", "game")


def rows_from(game: Game, episodes: pa.RecordBatch | pa.Table, settings: TargetSettings) -> Rows:
    """The trainable decisions of game episodes (columns `COLUMNS` at least), in order.

    Only full searches of trainable episodes count; random openings, cheap searches and aborted games teach nothing.
    Raises `ValueError` if an archived action is not legal in the position it was played in.
    """
    steps, step_offsets = _flat_list(pc.struct_field(_one(episodes, "game"), "steps"))
    candidates, candidate_offsets = _flat_list(pc.struct_field(steps, "candidates"))
    seat = _numbers(steps, "seat")
    action = _numbers(steps, "action")
    root = _numbers(steps, "root_value") / UNITS
    searched = np.diff(candidate_offsets) > 0
    trainable = np.asarray(_one(episodes, "trainable").to_numpy(zero_copy_only=False), bool)
    keep = _kept(episodes, steps, np.diff(step_offsets), searched)
    kept = np.flatnonzero(keep)

    flat, offsets = ragged(candidate_offsets[:-1][kept], candidate_offsets[1:][kept])
    visits = _numbers(candidates, "visits")[flat].astype(np.int32)
    prior = np.maximum(_numbers(candidates, "prior")[flat], 0.5) / UNITS
    if settings.algorithm == "gumbel":
        q = _numbers(candidates, "q")[flat] / UNITS
        raw = _numbers(steps, "raw_value")[kept] / UNITS
        targets, value = gumbel_targets(offsets, visits, prior, q, raw, settings.c_visit, settings.c_scale)
    else:
        assert settings.algorithm == "puct"
        targets, value = visit_targets(offsets, visits, prior), root[kept]

    z, last, decided = (x[kept] for x in _outcomes(episodes, game.value_scale, seat, root, searched, step_offsets))
    stand_in = np.where(decided, 0.0, settings.z_weight * settings.truncated_weight)
    q_weight = settings.q_weight + stand_in
    q = np.where(stand_in > 0, (settings.q_weight * value + stand_in * last) / np.maximum(q_weight, 1e-9), value)
    return Rows(
        observations=_observations(game, action, seat, keep, step_offsets, trainable),
        offsets=offsets,
        actions=_numbers(candidates, "action")[flat].astype(np.int32),
        targets=targets,
        z=z.astype(np.float32),
        q=q.astype(np.float32),
        policy_weight=np.ones(len(kept), np.float32),
        z_weight=(settings.z_weight * decided).astype(np.float32),
        q_weight=q_weight.astype(np.float32),
    )


def count_rows(episodes: pa.RecordBatch | pa.Table) -> int:
    """How many rows `rows_from` would give (columns "trainable" and "game")."""
    steps, offsets = _flat_list(pc.struct_field(_one(episodes, "game"), "steps"))
    return int(_kept(episodes, steps, np.diff(offsets), _candidate_counts(steps) > 0).sum())


def row_places(episodes: pa.RecordBatch | pa.Table) -> Array:
    """`[rows, 2]` int64: for each row of `rows_from`, in order, the index of its episode and of its step in it."""
    steps, offsets = _flat_list(pc.struct_field(_one(episodes, "game"), "steps"))
    lengths = np.diff(offsets)
    kept = np.flatnonzero(_kept(episodes, steps, lengths, _candidate_counts(steps) > 0))
    episode = np.repeat(np.arange(len(lengths)), lengths)[kept]
    return np.stack([episode, kept - offsets[:-1][episode]], 1).astype(np.int64)


def _candidate_counts(steps: pa.StructArray) -> Array:
    """`[steps]` int64: actions that the search of each step weighed."""
    counts = pc.fill_null(pc.list_value_length(pc.struct_field(steps, "candidates")), 0)
    return np.asarray(counts).astype(np.int64)


def _kept(episodes: pa.RecordBatch | pa.Table, steps: pa.StructArray, lengths: Array, searched: Array) -> Array:
    """`[steps]` bool: full searches of trainable episodes. lengths: `[episodes]`, steps of each."""
    trainable = np.asarray(_one(episodes, "trainable").to_numpy(zero_copy_only=False), bool)
    full: Array = np.asarray(pc.struct_field(steps, "full_search")).astype(bool)
    return np.repeat(trainable, lengths) & searched & full


def _outcomes(
    episodes: pa.RecordBatch | pa.Table, scale: float, seat: Array, root: Array, searched: Array, step_offsets: Array
) -> tuple[Array, Array, Array]:
    """Each `[steps]`, for the seat of the step: outcome z in [-1, 1], the game's last search value, whether z is known.

    Where the game had no outcome, z is 0; where it had one, the last search value is 0.
    """
    z, last = np.zeros(len(seat)), np.zeros(len(seat))
    decided = np.zeros(len(seat), bool)
    for e, returns in enumerate(_one(episodes, "returns").to_pylist()):
        rows = slice(int(step_offsets[e]), int(step_offsets[e + 1]))
        seats = seat[rows]
        if returns is not None:
            z[rows] = np.asarray(returns)[np.maximum(seats, 0)] / scale
            decided[rows] = True
            continue
        found = np.flatnonzero(searched[rows])
        if len(found):
            end = rows.start + found[-1]
            last[rows] = np.where(seats == seat[end], root[end], -root[end])
    return z, last, decided


def _observations(game: Game, action: Array, seat: Array, keep: Array, step_offsets: Array, trainable: Array) -> Array:
    """`[kept, *input_shape]` float32: what the seat to act saw before each kept step, by replay."""
    encoder = game.encoder
    raw = np.empty((int(keep.sum()), encoder.gather.shape[1]), np.float32)
    actions, seats, wanted, row = action.tolist(), seat.tolist(), keep.tolist(), 0
    for e in np.flatnonzero(trainable).tolist():
        state = game.new_initial_state()
        for i in range(int(step_offsets[e]), int(step_offsets[e + 1])):
            if wanted[i]:
                encoder.look(state, seats[i], raw[row])
                row += 1
            if actions[i] not in state.legal_actions():
                raise ValueError(f"archived episode {e} of the batch plays {actions[i]}, which is not legal there")
            state.apply_action(actions[i])
    inputs: Array = encoder.arrange(raw, seat[keep])
    return inputs


def _one(episodes: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = episodes.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _flat_list(lists: pa.ListArray) -> tuple[pa.StructArray, Array]:
    """The elements of all lists and `[n + 1]` int64 offsets into them; null lists are empty."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False), out=offsets[1:])
    return lists.flatten(), offsets


def _numbers(records: pa.StructArray, name: str) -> Array:
    """An integer field as int64, nulls as zero."""
    return np.asarray(pc.fill_null(pc.struct_field(records, name), 0)).astype(np.int64)
