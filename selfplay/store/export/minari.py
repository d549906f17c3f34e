"""Minari datasets, one an environment and seat: set MINARI_DATASETS_PATH to the folder, then `minari.load_dataset(id)`.

Ids: `selfplay/tic_tac_toe/seat-0-v0` of environment tic_tac_toe-v0, `selfplay/openspiel/go_board_size_5/seat-1-v0` of
a game given by its OpenSpiel string. The metadata of an episode name the episode, its seat and its status.

A game with T decisions of the seat, A actions:
  observations   `[T + 1, *input_shape]` float32: what a net is shown for the seat at each of its decisions, and in the
                 end what the seat sees when the record ends, whoever is to act (zeros, where the game shows nothing)
  actions        `[T]` int64 in Discrete(A)
  rewards        `[T]` float64: zero, and at the last the return of the seat in utility units (zero without an outcome)
  terminations   true at the last decision of a game with an outcome, truncations of one without
  infos policy   `[T + 1, A]` float32: shares of the visits of a full search, zeros without one
  infos root_value   `[T + 1, 1]` float32: value after the search, utility units, the seat's view; NaN without a search
The last row of infos belongs to the final observation, and is empty. Option policy=no leaves the policy out: for games
with thousands of actions it is most of the file.

An episode of control is as it was recorded: actions are Discrete where they have no shape (as many as the largest of
the environment in this corpus says), else float64; infos logprob `[T + 1, 1]` where it is known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyspiel

from selfplay.environments import archived
from selfplay.environments.game import Encoder, Game, load
from selfplay.episode import Episode
from selfplay.episode.replay import ReplayError, advance
from selfplay.errors import UserError
from selfplay.store.export.sgf import ENDS_OTHERWISE, NOT_LEGAL, agrees

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

Array = np.ndarray[Any, Any]
#: Arrays of episodes that are held before they are written, bytes.
_HELD_BYTES = 16 * 2**20
#: Larger arrays are compressed.
_PACKED_BYTES = 2048
_FILE = "data/main_data.hdf5"


@dataclass(frozen=True)
class Part:
    """One seat's part of an episode, at least one decision. Arrays as told above.

    env: name of the environment, and its version. start, num_actions: of discrete actions; None: they are not discrete.
    """

    env: tuple[str, int]
    episode: Episode
    seat: int
    observations: Array
    actions: Array
    rewards: Array
    terminated: bool
    infos: dict[str, Array]
    num_actions: int | None
    start: int = 0

    @property
    def owner(self) -> tuple[str, str]:
        """The environment itself, of which `env` is a name without some of its characters."""
        return self.episode.provenance.env_id, "" if self.episode.game is None else self.episode.game.game_string

    @property
    def spaces(self) -> tuple[Any, Any]:
        """Gymnasium's spaces of one observation and of one action."""
        from gymnasium.spaces import Box, Discrete

        def box(of: Array) -> Any:
            return Box(-np.inf, np.inf, of.shape[1:], of.dtype.type)

        if self.num_actions is None:
            return box(self.observations), box(self.actions)
        return box(self.observations), Discrete(self.num_actions, start=self.start)


def parts(job: Job, policy: bool = True) -> Iterator[Part]:
    """What each seat did, in the order of the episodes. Option seat: only that one. policy: whether infos hold it.

    Everything that cannot be told so is left out, with the reason.
    """
    only, games = _only(job.options.get("seat")), dict[tuple[str, str], Game | str]()
    ranges, shapes = _action_ranges(job), dict[tuple[str, int], tuple[Any, ...]]()
    owners: dict[tuple[str, int], tuple[str, str]] = {}
    for episode in job.episodes():
        if episode.status in ("error", "invalid"):
            job.leave_out(f"its status is {episode.status}")
            continue
        if episode.game is not None:
            found = _game_parts(episode, games, policy)
        else:
            found = _control_part(episode, ranges.get(episode.provenance.env_id))
        if isinstance(found, str):
            job.leave_out(found)
            continue
        for seat in range(episode.seats if episode.game else 1) if only is None else [only]:
            part = next((part for part in found if part.seat == seat), None)
            if part is None:
                job.leave_out(f"seat {seat} makes no decision in it")
                continue
            shape = (part.observations.shape[1:], part.actions.shape[1:], part.num_actions)
            if owners.setdefault(part.env, part.owner) != part.owner:
                job.leave_out(f"the name of its dataset, {part.env[0]}, is that of another environment")
            elif shapes.setdefault(part.env, shape) == shape:
                yield part
            else:
                job.leave_out(f"its shapes are not those of the first episode of {part.env[0]}")


def _only(given: str | None) -> int | None:
    if given is not None and not given.isdecimal():
        raise UserError(f"option seat is the number of a seat, such as 0, not {given!r}")
    return None if given is None else int(given)


def _game_parts(episode: Episode, games: dict[tuple[str, str], Game | str], policy: bool) -> list[Part] | str:
    record, env_id = episode.game, episode.provenance.env_id
    assert record is not None
    derived = env_id.startswith("openspiel/")
    key = (env_id, record.game_string)
    if key not in games:
        games[key] = _seen_game(*key)
    game = games[key]
    if isinstance(game, str):
        return game
    if game.string != record.game_string:
        return f"{env_id} is {game.string} here, and was {record.game_string}"
    state, encoder = game.new_initial_state(), game.encoder
    seen: dict[int, list[Array]] = defaultdict(list)
    try:
        for ply, step in enumerate(record.steps):
            if step.seat >= 0:
                seen[step.seat].append(_look(encoder, state, step.seat))
            advance(state, step, ply)
    except ReplayError:
        return NOT_LEGAL
    if not agrees(state, episode):
        return ENDS_OTHERWISE
    found, env, ended = [], _named(record.game_string, episode, derived), episode.returns is not None
    for seat, looks in sorted(seen.items()):
        looks.append(_look(encoder, state, seat))
        steps = [step for step in record.steps if step.seat == seat]
        rewards = np.zeros(len(steps))
        rewards[-1] = 0.0 if episode.returns is None else episode.returns[seat]
        infos = {"root_value": np.full((len(looks), 1), np.nan, np.float32)}
        if policy:
            infos["policy"] = np.zeros((len(looks), game.num_actions), np.float32)
        for row, step in enumerate(steps):
            infos["root_value"][row] = step.root_value
            if policy and step.full_search and step.visits.sum() > 0:
                infos["policy"][row, step.actions] = step.visits / step.visits.sum()
        actions = np.array([step.action for step in steps], np.int64)
        observations = encoder.arrange(np.stack(looks), np.full(len(looks), seat))
        found.append(Part(env, episode, seat, observations, actions, rewards, ended, infos, game.num_actions))
    return found


def _seen_game(env_id: str, game_string: str) -> Game | str:
    """The game, or why nobody can see it here."""
    try:
        game = load(archived.find_game(env_id, game_string))
        _ = game.encoder  # raises, too
        return game
    except UserError as error:
        return str(error)


def _look(encoder: Encoder, state: pyspiel.State, seat: int) -> Array:
    """`[raw_size]` float32; zeros where the game has nothing to show, as some in their last state."""
    out = np.zeros(encoder.gather.shape[1], np.float32)
    try:
        encoder.look(state, seat, out)
    except (RuntimeError, ValueError):  # SpielError is a RuntimeError
        out[:] = 0
    return out


def _control_part(episode: Episode, discrete: tuple[int, int] | None) -> list[Part] | str:
    """discrete: smallest and largest of the environment's discrete actions."""
    data = episode.control
    assert data is not None
    rewards = np.asarray(data["rewards"], np.float64)
    if not len(rewards):
        return "it has no steps"
    try:
        actions = np.asarray(data["actions"], np.float64).reshape(len(rewards), *data["action_shape"])
        seen = np.asarray(data["observations"], np.float32).reshape(len(rewards) + 1, *data["observation_shape"])
    except ValueError:
        return "its arrays are not of the shapes that it names"
    infos = {}
    if data["logprobs"] is not None:
        infos["logprob"] = np.append(np.asarray(data["logprobs"], np.float32), np.float32(np.nan))[:, None]
    start, num_actions = 0, None
    if not data["action_shape"]:
        assert discrete is not None
        start, actions = min(0, discrete[0]), actions.astype(np.int64)
        num_actions = discrete[1] - start + 1
    env, ended = _named("", episode, False), episode.status == "ok"
    return [Part(env, episode, 0, seen, actions, rewards, ended, infos, num_actions, start)]


def _named(game_string: str, episode: Episode, derived: bool) -> tuple[str, int]:
    """Name and version; of letters, digits, "_", "-" and "/" only, and below whatever folder it is joined to."""
    name = f"openspiel/{game_string}" if derived else re.sub(r"-v\d+\Z", "", episode.provenance.env_id)
    plain = (re.sub(r"[^\w-]+", "_", part, flags=re.ASCII).strip("_") for part in name.split("/"))
    return "/".join(part for part in plain if part) or "unnamed", episode.provenance.env_version


def _action_ranges(job: Job) -> dict[str, tuple[int, int]]:
    """Of every environment of control with discrete actions: the smallest and the largest in the corpus."""
    asked = """
        SELECT env_id, min(list_min(control.actions)), max(list_max(control.actions)) FROM episodes
        WHERE kind = 'control' AND len(control.action_shape) = 0 AND len(control.actions) > 0 GROUP BY env_id
    """
    rows = job.corpus.to_duckdb().execute(asked).fetchall()
    return {str(env_id): (int(low), int(high)) for env_id, low, high in rows}


class _Dataset:
    """One dataset that is being written, some episodes at a time."""

    def __init__(self, job: Job, first: Part) -> None:
        from minari.dataset.minari_storage import MinariStorage

        name, version = first.env
        self.id = f"selfplay/{name}/seat-{first.seat}-v{version}"
        self._about = f"{first.episode.provenance.env_id}, seat {first.seat}, of corpus version {job.corpus.version}"
        place = job.folder / self.id / "data"
        place.mkdir(parents=True)
        observation, action = first.spaces
        self._storage = MinariStorage.new(place, observation, action, data_format="hdf5", jpeg_encoding=False)
        self._held: list[Part] = []
        self._path = place / "main_data.hdf5"
        self._bytes = self._written = self._steps = 0
        self._licences: set[str] = set()

    def add(self, part: Part) -> int:
        """Its index in the dataset."""
        self._held.append(part)
        self._licences.add(part.episode.provenance.licence)
        self._bytes += sum(array.nbytes for array in (part.observations, part.actions, *part.infos.values()))
        index = self._written + len(self._held) - 1
        if self._bytes >= _HELD_BYTES:
            self._flush()
        return index

    def close(self) -> None:
        import minari

        if self._held:
            self._flush()
        about = {
            "total_steps": self._steps,
            "total_episodes": self._written,
            "dataset_size": self._storage.get_size(),
            "dataset_id": self.id,
            "minari_version": minari.__version__,
            "author": {"selfplay-factory"},
            "description": self._about,
            "licences": sorted(self._licences),
        }
        self._storage.update_metadata(about)

    def _flush(self) -> None:
        import h5py

        with h5py.File(self._path, "a", track_order=True) as file:
            for index, part in enumerate(self._held, self._written):
                _write_part(file.create_group(f"episode_{index}", track_order=True), index, part)
        self._steps += sum(len(part.rewards) for part in self._held)
        of = ((part.episode, part.seat) for part in self._held)
        told = [{"episode_id": episode.episode_id, "seat": seat, "status": episode.status} for episode, seat in of]
        self._storage.update_episode_metadata(told, range(self._written, self._written + len(told)))
        self._written += len(told)
        self._held, self._bytes = [], 0


def _write_part(group: Any, index: int, part: Part) -> None:
    """An episode as minari lays it out, compressed.

    minari itself writes chunks of a fixed size, uncompressed: of games, which are short, many times the data.
    """
    last = np.arange(len(part.rewards)) == len(part.rewards) - 1
    group.attrs["id"] = index
    if part.episode.seed is not None:
        group.attrs["seed"] = part.episode.seed
    group.attrs["total_steps"] = len(part.rewards)
    arrays = {
        "observations": part.observations,
        "actions": part.actions,
        "rewards": part.rewards,
        "terminations": last & part.terminated,
        "truncations": last & (not part.terminated),
        **{f"infos/{name}": array for name, array in part.infos.items()},
    }
    for name, array in arrays.items():
        # Below this a chunk's index is larger than what compression saves.
        packed = array.nbytes > _PACKED_BYTES
        how = {"chunks": array.shape, "compression": "gzip", "compression_opts": 1, "shuffle": True} if packed else {}
        group.create_dataset(name, data=array, **how)


def write(job: Job) -> None:
    """Options: seat, only that one; policy=no, without the policy targets."""
    given = job.options.get("policy", "yes")
    if given not in ("yes", "no"):
        raise UserError(f"option policy is yes or no, not {given!r}")
    datasets: dict[tuple[tuple[str, int], int], _Dataset] = {}
    for part in parts(job, policy=given == "yes"):
        key = (part.env, part.seat)
        if key not in datasets:
            datasets[key] = _Dataset(job, part)
        index = datasets[key].add(part)
        job.row(f"{datasets[key].id}/{_FILE}", index, part.episode.episode_id, part.seat)
    for dataset in datasets.values():
        dataset.close()
