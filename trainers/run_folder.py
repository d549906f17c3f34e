"""The folder of a run: which experiment it belongs to, who holds it, and what is needed to go on.

    config.json    the resolved configuration            agent.json    what `Agent.load` needs besides weights
    run.json       the run's identity                    state.json    the newest checkpoint and everything counted
    lease/         who holds the run                     weights/      one safetensors file a kept version
    checkpoints/   net, optimiser and counters           corpus/       the archive, unless it lies elsewhere

Every place is a URI. `state.json` is written last, in one piece: what it names is complete.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deltalake.exceptions import TableNotFoundError

from selfplay import run_files, storage
from selfplay.errors import UserError
from selfplay.store.table import episodes_uri, open_table
from trainers.config import CONFIG_NAME, RunConfig, from_json, incompatible

#: Rises when older code would misread `state.json` or `run.json`.
SCHEMA = 1
_RUN, _STATE = "run.json", "state.json"


@dataclass
class State:
    """What a run must remember beside net, optimiser and corpus.

    checkpoint: name below `checkpoints/`, None before the first. version: newest published.
    total_s, elapsed_s: of the present plan; a plan that was cut short is finished before a new one begins.
    matches: results of matches, as (version, opponent, wins, draws, losses, cut, elapsed_s, simulations) mappings.
    exact: results against exact play, as (version, label, mistakes, positions) mappings.
    lost_games, lost_plies: games that died with their process.
    games_in_flight, plies_in_flight: not sealed when this was saved; lost, if nothing was saved after it.
    """

    schema: int = SCHEMA
    checkpoint: str | None = None
    version: int = -1
    digest: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
    matches: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)
    lost_games: int = 0
    lost_plies: int = 0
    games_in_flight: int = 0
    plies_in_flight: int = 0
    wandb_id: str | None = None


class RunFolder:
    """A run's folder, found to fit the configuration. Nothing is written until `begin`."""

    def __init__(self, uri: str, config: RunConfig) -> None:
        """Raises `UserError` for a folder of another experiment or of a newer schema."""
        self.uri = storage.normalise(uri)
        self.config = config
        self.new = True
        self.run_id = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        self.state = State()
        try:
            before = from_json(self._read(CONFIG_NAME), storage.join(self.uri, CONFIG_NAME))
            identity = json.loads(self._read(_RUN))
        except FileNotFoundError:
            return
        self.new = False
        reason = incompatible(before, config)
        if reason is not None:
            raise UserError(f"{self.uri} holds another run: {reason}; give another --out")
        self._check(identity, _RUN)
        self.run_id = identity["run_id"]
        with contextlib.suppress(TableNotFoundError):
            open_table(episodes_uri(self.corpus))  # refuses a newer schema
        try:
            kept = json.loads(self._read(_STATE))
        except FileNotFoundError:
            return
        self._check(kept, _STATE)
        self.state = state = State(**kept)
        state.lost_games += state.games_in_flight
        state.lost_plies += state.plies_in_flight
        state.games_in_flight = state.plies_in_flight = 0

    @property
    def corpus(self) -> str:
        """Where the run's episodes go."""
        return storage.join(self.uri, "corpus")

    def begin(self, about_agent: str) -> None:
        """Writes down what the run is; `about_agent`: from `selfplay.agent.describe`."""
        storage.write(storage.join(self.uri, _RUN), json.dumps({"schema": SCHEMA, "run_id": self.run_id}).encode())
        storage.write(storage.join(self.uri, run_files.AGENT_FILE), about_agent.encode())
        storage.write(storage.join(self.uri, CONFIG_NAME), self.config.to_json().encode())

    def checkpoint_uri(self, name: str) -> str:
        return storage.join(self.uri, "checkpoints", name)

    def save(self) -> None:
        """Writes `state.json`; the checkpoint that it names must be complete."""
        storage.write(storage.join(self.uri, _STATE), json.dumps(asdict(self.state)).encode())

    def forget_old(self) -> None:
        """Deletes checkpoints and weights beyond the stated rule: the newest few, and of weights every k-th version."""
        newest, every = self.config.run.keep_checkpoints, self.config.run.keep_every
        names = [n for n in storage.names(storage.join(self.uri, "checkpoints")) if n != self.state.checkpoint]
        self._delete([self.checkpoint_uri(name) for name in names[: -newest + 1 or None]])
        found = run_files.versions(self.uri)
        old = [v for v in found[:-newest] if v % every and v != self.state.version]
        self._delete([run_files.weights_uri(self.uri, version) for version in old])

    def _delete(self, uris: Sequence[str]) -> None:
        for uri in uris:
            storage.delete(uri)

    def _read(self, name: str) -> str:
        return storage.read(storage.join(self.uri, name)).decode()

    def _check(self, data: dict[str, Any], name: str) -> None:
        if data.get("schema", 0) > SCHEMA:
            raise UserError(
                f"{storage.join(self.uri, name)} has schema {data['schema']}, newer than the {SCHEMA} known here; "
                "upgrade the package"
            )
