"""A third kind of run, as another distribution would bring it: random games, and one number learned from them.

The number is the first player's mean return. All else that a run has is the factory's: folder, lease, archive, weights,
resuming, status and screen.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import ray
from pydantic import Field

from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import random_episode
from selfplay.nets import weights
from selfplay.store.table.write import Writer
from trainers.run.kind import RunKind, Start
from trainers.run.run_folder import RunFolder
from trainers.run.run_state import RunState
from trainers.run.services import Office
from trainers.run.settings import Experiment, RunSettings, Settings


class CoinSettings(Settings):
    id: Annotated[str, Field(min_length=1)]
    """What is played at random."""
    games: int = 20
    """Games of a round."""


class CoinConfig(Experiment):
    coin: CoinSettings
    run: RunSettings = RunSettings()


@dataclass
class CoinState(RunState):
    """games: learned from. mean: of the first player's returns."""

    games: int = 0
    mean: float = 0.0


@dataclass(frozen=True)
class CoinStatus:
    recipe: str
    env: str
    out: str
    corpus: str
    phase: str = "starting"
    activity: str = ""
    elapsed_s: float = 0.0
    total_s: float = 0.0
    episodes: int = 0
    version: int = 0
    mean: float | None = None
    games_per_s: float = 0.0
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class CoinSummary:
    run_id: str
    ended_by: Literal["time", "interrupted"]
    status: CoinStatus

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(config: CoinConfig, spec: GameSpec, start: Start) -> CoinSummary:
    """Plays, archives, learns and publishes, a round at a time."""
    folder = RunFolder(start.out, config, KIND, start.lease)
    state, game = folder.state, load(spec)
    rules, net = ruleset_digest(spec), '{"mean": 1}'
    office = Office(config, spec, folder, start.lease.epoch, start.place, rules, net, "random", str(game.game))
    try:
        office.open_archive(json.dumps({"kind": "coin"}))
        office.publish_kept(lambda: {"mean": np.zeros(1, np.float32)})
        registration = office.register("coin")
        writer = Writer(folder.corpus, registration.slot, registration.epoch, registration.next_number)
        began, before = time.monotonic(), state.elapsed_s
        state.total_s = max(state.total_s, 60.0 * config.run.minutes)
        number = 0
        while state.elapsed_s < state.total_s and not start.stop.is_set():
            seeds = [config.run.seed + state.games + i for i in range(config.coin.games)]
            episodes = [
                random_episode(game.game, seed, office.provenance, writer.slot, writer.epoch, number + i)
                for i, seed in enumerate(seeds)
            ]
            number += len(episodes)
            block, _ = writer.write(episodes)
            (receipt,) = ray.get(office.archivist.commit.remote([block]))
            office.archived(block, receipt)
            total = state.mean * state.games + sum(one.returns[0] for one in episodes if one.returns)
            state.games += len(episodes)
            state.mean = total / state.games
            tensors = {"mean": np.array([state.mean], np.float32)}
            version, digest = state.version + 1, weights.digest(tensors)
            version = weights.save_version(folder.uri, version, tensors, {"step": state.games})
            office.enter_policy(version, digest, state.digest, state.games, state.games)
            office.publish(version, digest, ray.put(tensors))
            state.version, state.digest = version, digest
            state.elapsed_s = before + time.monotonic() - began
            folder.save()
            start.on_status(_status(config, spec, folder, "playing"))
        interrupted = state.elapsed_s < state.total_s
        office.close(interrupted)
        status = _status(config, spec, folder, "finished")
        start.on_status(status)
        return CoinSummary(folder.run_id, "interrupted" if interrupted else "time", status)
    finally:
        office.dismiss()


def _status(config: CoinConfig, spec: GameSpec, folder: RunFolder[CoinState], phase: str) -> CoinStatus:
    s = folder.state
    about = (config.name, spec.id, folder.uri, folder.corpus)
    return CoinStatus(*about, phase, "", s.elapsed_s, s.total_s, s.games, s.version, s.mean, s.games / s.elapsed_s)


KIND: RunKind[CoinState] = RunKind(
    name="coin",
    section="coin",
    environment="game",
    spec=GameSpec,
    config=CoinConfig,
    state=CoinState,
    find=registry.find,
    refuse=lambda config, spec: None,
    incompatible=lambda old, new: None if old.coin.id == new.coin.id else "another game",
    first_status=lambda config, env_id, out, activity: CoinStatus(config.name, env_id, out, "", activity=activity),
    preload=lambda: None,
    run=run,
    in_brief=lambda config: ("one number", "the mean"),
    rate="games_per_s",
    lost=("lost_games", lambda status: 0),
    score=lambda status: status.mean,
    for_trial=lambda config, cores: [],
)
