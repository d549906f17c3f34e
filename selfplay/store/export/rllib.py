"""RLlib's offline data for the new API stack, one folder an environment and seat: `tic_tac_toe-v0/seat-0/*.parquet`.

The one column, item, holds `SingleAgentEpisode` states packed by msgpack and msgpack_numpy, as RLlib's own recorder
writes them. `BCConfig().offline_data(input_=[folder], input_read_episodes=True, input_read_batch_size=…)` reads them.

An episode is what one seat did (see `selfplay.store.export.minari`): T + 1 observations, T actions, T rewards. The
observations of games are flat, `[N]` float32, because RLlib takes three dimensions for an image with channels last;
custom_data holds their shape, and the episode, seat and status. The id is the episode's with "/seat-0" after it.
logprobs of control are the extra model output action_logp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfplay.store.export.minari import Part, parts

if TYPE_CHECKING:
    from pathlib import Path

    from selfplay.store.export.job import Job

_SCHEMA = pa.schema([("item", pa.binary())])
#: A row group is written when it has so many bytes, and a file is full when it has so many episodes.
_GROUP_BYTES = 8 * 2**20
_FILE_EPISODES = 4096


class _Folder:
    """The files of one environment and seat."""

    def __init__(self, root: Path, part: Part) -> None:
        name, version = part.env
        self._root, self._folder = root, f"{name}-v{version}/seat-{part.seat}"
        (root / self._folder).mkdir(parents=True)
        self._writer: pq.ParquetWriter | None = None
        self._held: list[bytes] = []
        self._bytes = self._count = 0

    def add(self, item: bytes) -> tuple[str, int]:
        """The file it goes to, and its row there."""
        row = self._count % _FILE_EPISODES
        name = f"{self._folder}/episodes-{self._count // _FILE_EPISODES:05d}.parquet"
        if row == 0:
            self.close()
            self._writer = pq.ParquetWriter(self._root / name, _SCHEMA, compression="zstd")
        self._held.append(item)
        self._bytes += len(item)
        self._count += 1
        if self._bytes >= _GROUP_BYTES:
            self._flush()
        return name, row

    def close(self) -> None:
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        assert self._writer is not None
        if self._held:
            self._writer.write_table(pa.table([self._held], schema=_SCHEMA))
        self._held, self._bytes = [], 0


def write(job: Job) -> None:
    """Option seat: only that one."""
    import msgpack
    import msgpack_numpy

    folders: dict[tuple[tuple[str, int], int], _Folder] = {}
    for part in parts(job, policy=False):
        key = (part.env, part.seat)
        if key not in folders:
            folders[key] = _Folder(job.folder, part)
        item = msgpack.packb(_episode(part).get_state(), default=msgpack_numpy.encode)
        file, row = folders[key].add(item)
        job.row(file, row, part.episode.episode_id, part.seat)
    for folder in folders.values():
        folder.close()


def _episode(part: Part) -> Any:
    from gymnasium.spaces import Box
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    shape = part.observations.shape[1:]
    seen, (space, action_space) = part.observations, part.spaces
    if part.episode.game is not None:
        space, seen = Box(-np.inf, np.inf, (math.prod(shape),), np.float32), seen.reshape(len(seen), -1)
    extra = {"action_logp": list(part.infos["logprob"][:-1, 0])} if "logprob" in part.infos else None
    episode = SingleAgentEpisode(
        id_=f"{part.episode.episode_id}/seat-{part.seat}",
        observations=list(seen),
        observation_space=space,
        actions=list(part.actions),
        action_space=action_space,
        rewards=part.rewards.tolist(),
        terminated=part.terminated,
        truncated=not part.terminated,
        extra_model_outputs=extra,
        len_lookback_buffer=0,  # with the default all data are history, and the state cannot be packed
    )
    episode.custom_data.update(
        episode_id=part.episode.episode_id,
        seat=part.seat,
        status=part.episode.status,
        observation_shape=list(shape),
    )
    return episode
