"""Training rows as numpy arrays: what a net is shown and should answer, one row a full search of a trainable game.

`rows-00000.npz`, … hold, for N rows of one environment:
  observation   `[N, *input_shape]` float32, what the seat to act sees
  policy        `[N, A]` float32, the policy target over all A actions; sums to one, zero where illegal
  legal         `[N, A]` bool
  z             `[N]` float32 in [-1, 1], outcome for the seat to act, in units of the game's largest utility; NaN where
                the game has none (it was cut off), whatever z_weight is
  q             `[N]` float32 in [-1, 1], value of the improved policy (PUCT: of the root), same point of view
  z_weight, q_weight   `[N]` float32, how much each counts in the value target
  step          `[N]` int32, index of the step in its episode
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.environments.game import load
from selfplay.episode.rows import Rows
from selfplay.episode.training import COLUMNS, count_rows, row_places, rows_from
from selfplay.store.corpus.targets import one_config, one_game, targets_of

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

Array = np.ndarray[Any, Any]
#: Numbers in the arrays of a file, about.
_MOST_NUMBERS = 2**24
#: Zip files name a time; this one, so that the same rows are the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def write(job: Job) -> None:
    """One file a part of the episodes. Option env: which environment, where the corpus has several."""
    env_id, spec = one_game(job.corpus, job.options.get("env"), "format npz", job.where or "true")
    game, targets = load(spec), targets_of(job.corpus)
    files, most = 0, _MOST_NUMBERS // (game.num_actions + game.encoder.size)
    for batch in job.batches([*COLUMNS, "run_id", "config_digest", "env_id", "episode_id", "n_steps"]):
        mine = batch.filter(pc.and_(pc.equal(batch.column("env_id"), env_id), batch.column("trainable")))
        for part in (part for one in one_config(mine) for part in _parts(one, most)):
            if not count_rows(part):
                continue
            run_id, digest = (part.column(column)[0].as_py() for column in ("run_id", "config_digest"))
            rows = rows_from(game, part, targets.of(run_id, digest, ", so it has no targets"))
            name = f"rows-{files:05d}.npz"
            places, ids = row_places(part), part.column("episode_id").to_pylist()
            ended = np.asarray(part.column("returns").is_valid())[places[:, 0]]
            (job.folder / name).write_bytes(_packed(_arrays(rows, places[:, 1], ended, game.num_actions)))
            for row, episode in enumerate(places[:, 0].tolist()):
                job.row(name, row, ids[episode])
            files += 1


def _parts(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """The batch in slices of `most` steps together, or of one episode."""
    ends, first = np.cumsum(np.asarray(batch.column("n_steps"))), 0
    while first < batch.num_rows:
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + most, "right")))
        yield batch.slice(first, end - first)
        first = end


def _arrays(rows: Rows, steps: Array, ended: Array, num_actions: int) -> dict[str, Array]:
    """ended: `[N]` bool, whether the row's game has an outcome."""
    policy, legal = np.zeros((len(rows), num_actions), np.float32), np.zeros((len(rows), num_actions), bool)
    at = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
    policy[at, rows.actions], legal[at, rows.actions] = rows.targets, True
    return {
        "observation": rows.observations,
        "policy": policy,
        "legal": legal,
        "z": np.where(ended, rows.z, np.float32(np.nan)),
        "q": rows.q,
        "z_weight": rows.z_weight,
        "q_weight": rows.q_weight,
        "step": steps.astype(np.int32),
    }


def _packed(arrays: dict[str, Array]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _TIME), data.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()
