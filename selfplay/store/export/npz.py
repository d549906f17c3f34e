"""Training rows as numpy arrays: what a net is shown and should answer, one row a full search of a trainable game.

`rows-00000.npz`, … hold, for N rows of one environment:
  observation   `[N, *input_shape]` float32, what the seat to act sees
  policy        `[N, A]` float32, the policy target over all A actions; sums to one, zero where illegal
  legal         `[N, A]` bool
  z             `[N]` float32 in [-1, 1], outcome for the seat to act, in units of the game's largest utility; NaN: none
  q             `[N]` float32 in [-1, 1], value of the improved policy (PUCT: of the root), same point of view
  z_weight, q_weight   `[N]` float32, how much each counts in the value target
  step          `[N]` int32, index of the step in its episode
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from selfplay.episode.training import COLUMNS, row_places, rows_from
from selfplay.errors import UserError
from selfplay.game import load
from selfplay.store.targets import one_game, targets_of

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

Array = np.ndarray[Any, Any]
#: Zip files name a time; this one, so that the same rows are the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def write(job: Job) -> None:
    """One file a batch of episodes. Option env: which environment, where the corpus has several."""
    env_id, spec = one_game(job.corpus, job.options.get("env"), "format npz")
    game, settings = load(spec), targets_of(job.corpus)
    files = 0
    for batch in job.batches([*COLUMNS, "run_id", "env_id", "episode_id"]):
        run_id = batch.column("run_id")[0].as_py()  # a batch is of one writer
        mine = batch.filter(pc.equal(batch.column("env_id"), env_id))
        if not mine.num_rows:
            continue
        if run_id not in settings:
            raise UserError(f"the corpus does not say how run {run_id} searched (table runs), so it has no targets")
        rows = rows_from(game, mine, settings[run_id])
        if not len(rows):
            continue
        places, ids = row_places(mine), mine.column("episode_id").to_pylist()
        policy = np.zeros((len(rows), game.num_actions), np.float32)
        legal = np.zeros((len(rows), game.num_actions), bool)
        at = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
        policy[at, rows.actions], legal[at, rows.actions] = rows.targets, True
        name = f"rows-{files:05d}.npz"
        arrays = {
            "observation": rows.observations,
            "policy": policy,
            "legal": legal,
            "z": np.where(rows.z_weight > 0, rows.z, np.float32(np.nan)),
            "q": rows.q,
            "z_weight": rows.z_weight,
            "q_weight": rows.q_weight,
            "step": places[:, 1].astype(np.int32),
        }
        (job.folder / name).write_bytes(_packed(arrays))
        for row, episode in enumerate(places[:, 0].tolist()):
            job.row(name, row, ids[episode])
        files += 1


def _packed(arrays: dict[str, Array]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _TIME), data.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()
