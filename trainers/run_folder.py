"""The folder of a run: which experiment it belongs to, who holds it, and what is needed to go on.

    config.json    the resolved configuration            agent.json    what `Agent.load` needs besides weights
    run.json       the run's identity                    state/        the newest checkpoint and everything counted
    lease/         who holds the run                     weights/      one safetensors file a kept version
    checkpoints/   net, optimiser and counters           corpus/       the archive, or corpus.uri: where it lies
    status.json    how it is doing, every few seconds

Every place is a URI. The state is written last, in one piece: what it names is complete. Each driver writes a state of
its own, `state/000003.json` under epoch 3, and the highest counts: a write of a driver that was replaced, however late
it arrives, changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from deltalake.exceptions import TableNotFoundError

from selfplay import run_files, storage
from selfplay.errors import UserError
from selfplay.store import Fenced, Lease
from selfplay.store.table import ELSEWHERE, episodes_uri, open_table
from trainers.experiment import CONFIG_NAME, AnyConfig, from_json, incompatible

#: Rises when older code would misread state or `run.json`.
SCHEMA = 2
_RUN = "run.json"


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

    def resumed(self) -> None:
        """What was under way when this was saved is lost."""
        self.lost_games += self.games_in_flight
        self.lost_plies += self.plies_in_flight
        self.games_in_flight = self.plies_in_flight = 0


@dataclass
class ReasoningState:
    """What a reasoning run must remember beside policy, optimiser and corpus; as of the newest checkpoint.

    checkpoint, version, digest, total_s, elapsed_s, wandb_id: as in `State`.
    warm_steps: of the warm start. round: rounds that were learned from.
    cursors: level (as text) -> seed from which the next problem is sought; taken: (level, seed) pairs beyond that were
    asked for already. curriculum, gate: their own states.
    scores: held-out results, as (version, level, right, problems, tokens, elapsed_s) mappings.
    failures: why verification failed -> answers; see `ReasoningStatus`.
    """

    schema: int = SCHEMA
    checkpoint: str | None = None
    version: int = -1
    digest: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
    warm_steps: int = 0
    round: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    taken: list[list[float]] = field(default_factory=list)
    curriculum: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    wandb_id: str | None = None

    def resumed(self) -> None:
        """Nothing is lost: rounds that were archived since are learned from again."""


AnyState = TypeVar("AnyState", State, ReasoningState)


class RunFolder(Generic[AnyState]):
    """A run's folder, found to fit the configuration. Nothing is written until `begin`."""

    state: AnyState

    def __init__(self, uri: str, config: AnyConfig, state: type[AnyState], lease: Lease | None = None) -> None:
        """Raises `UserError` for a folder of another experiment or of a newer schema. lease: of who writes to it."""
        self.uri, self._lease = storage.normalise(uri), lease
        self.config = config
        self.new = True
        self.run_id = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        self.state = state()
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
        kept = self._saved()
        if kept:
            self.state = state(**kept)
            self.state.resumed()

    def reload(self) -> AnyState:
        """The state as it was saved last, or of a run that has not begun where nothing was saved."""
        before = self.state.wandb_id
        self.state = type(self.state)(**self._saved())
        self.state.wandb_id = self.state.wandb_id or before
        return self.state

    @property
    def corpus(self) -> str:
        """Where the run's episodes go."""
        elsewhere = self.config.run.corpus
        return storage.normalise(elsewhere) if elsewhere else storage.join(self.uri, "corpus")

    def begin(self, about_agent: str) -> None:
        """Writes down what the run is, and that its state is this driver's from now on.

        about_agent: JSON of what is needed besides weights to use its policy.
        """
        storage.write(storage.join(self.uri, _RUN), json.dumps({"schema": SCHEMA, "run_id": self.run_id}).encode())
        storage.write(storage.join(self.uri, run_files.AGENT_FILE), about_agent.encode())
        if self.config.run.corpus:
            storage.write(storage.join(self.uri, ELSEWHERE), self.corpus.encode())
        storage.write(storage.join(self.uri, CONFIG_NAME), self.config.to_json().encode())
        self.save()
        storage.delete(storage.join(self.uri, run_files.OLD_STATE_FILE))

    def checkpoint_uri(self, name: str) -> str:
        return storage.join(self.uri, "checkpoints", name)

    def save(self) -> None:
        """Writes the state; the checkpoint that it names must be complete. Raises `Fenced` if another has the run."""
        if self._lease is not None and self._lease.lost():
            raise Fenced(f"{self.uri} was taken over by another driver")
        storage.write(run_files.state_uri(self.uri, self._epoch), json.dumps(asdict(self.state)).encode())

    def forget_old(self) -> None:
        """Deletes checkpoints and weights beyond the stated rule: the newest few, and of weights every k-th version.

        Of other drivers' states the last is left.
        """
        newest, every = self.config.run.keep_checkpoints, self.config.run.keep_every
        names = [n for n in storage.names(storage.join(self.uri, "checkpoints")) if n != self.state.checkpoint]
        self._delete([self.checkpoint_uri(name) for name in names[: -newest + 1 or None]])
        found = run_files.versions(self.uri)
        old = [v for v in found[:-newest] if v % every and v != self.state.version]
        self._delete([run_files.weights_uri(self.uri, version) for version in old])
        before = [epoch for epoch in run_files.state_epochs(self.uri) if epoch < self._epoch]
        self._delete([run_files.state_uri(self.uri, epoch) for epoch in before[:-1]])

    def _delete(self, uris: Sequence[str]) -> None:
        for uri in uris:
            storage.delete(uri)

    @property
    def _epoch(self) -> int:
        return self._lease.epoch if self._lease is not None else 0

    def _saved(self) -> dict[str, Any]:
        """What the newest driver has saved, empty where none has."""
        kept = run_files.read_state(self.uri)
        self._check(kept, "state")
        return {**kept, "schema": SCHEMA} if kept else {}

    def _read(self, name: str) -> str:
        return storage.read(storage.join(self.uri, name)).decode()

    def _check(self, data: dict[str, Any], name: str) -> None:
        if data.get("schema", 0) > SCHEMA:
            raise UserError(
                f"{storage.join(self.uri, name)} has schema {data['schema']}, newer than the {SCHEMA} known here; "
                "upgrade the package"
            )
