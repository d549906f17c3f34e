"""The folder of a run: which experiment it belongs to, who holds it, and what is needed to go on.

    config.json    the resolved configuration            agent.json    what `Agent.load` needs besides weights
    run.json       the run's identity                    begun/        these three as each driver began with them
    state/         the newest checkpoint and counts      weights/      one safetensors file a kept version
    checkpoints/   net, optimiser, counters and state    corpus/       the archive, or corpus.uri: where it lies
    lease/         who holds the run                     damaged/      files that were found damaged
    status.json    how it is doing, every few seconds    reach.json     what its user let it reach outside

Every place is a URI. What is needed to go on is written in an order, and each write is on the disk before the next
begins: checkpoint, weights, then the state, which names them. Each driver writes a state of its own,
`state/000003.json` under epoch 3, and the highest counts: a write of a driver that was replaced, however late it
arrives, changes nothing.

A file that is damaged all the same is passed over for the one before: an older state or the one in a checkpoint, an
older checkpoint, older weights, the record of the last beginning. The corpus tells what came after. The driver that
passes a file over says so, and moves it to `damaged/`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Generic

from deltalake.exceptions import TableNotFoundError

from selfplay import vouched
from selfplay.commands import command
from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, sealed, storage
from selfplay.nets import weights
from selfplay.store import Fenced, Lease
from selfplay.store.table.log import DamagedLog
from selfplay.store.table.table import ELSEWHERE, episodes_uri, is_name, open_table
from trainers.run.event_log import note
from trainers.run.kind import RunKind
from trainers.run.reach import reach
from trainers.run.run_state import SCHEMA, AnyState, state_from
from trainers.run.settings import Experiment, from_mapping

#: Of the versions that a run keeps for their number, no more than this.
MOST_WEIGHTS = 1000


class RunFolder(Generic[AnyState]):
    """A run's folder, found to fit the configuration. Nothing is written until `begin`.

    new: whether there was no run before.
    """

    uri: str
    config: Experiment
    new: bool
    run_id: str
    state: AnyState

    def __init__(self, uri: str, config: Experiment, kind: RunKind[AnyState], lease: Lease | None = None) -> None:
        """Raises `UserError` for a folder of another experiment or of a newer schema. lease: of who writes to it."""
        self.uri, self._lease = storage.normalise(uri), lease
        self.config, self._kind = config, kind.state
        self.new = True
        self.run_id = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        self.state = kind.state()
        self._written: dict[str, Any] = {}  # the state as it was saved last
        self._passed: list[tuple[Damaged, str]] = []  # damaged files, and what is used in their place
        self._aside: set[str] = set()  # those that were moved
        self.mended: list[str] = []  # what the committer repaired of the corpus, to be told
        try:
            before, damaged = run_files.read_part(self.uri, run_files.CONFIG_FILE, "config")
            identity, more = self._identity()
        except FileNotFoundError:
            self._refuse_remains()
            return
        self.new = False
        self.pass_over([*damaged, *more], "the record of the last start")
        reason: str | None = f"it is not {kind.name}, and this is"
        if kind.section in before:
            source = storage.join(self.uri, run_files.CONFIG_FILE)
            reason = kind.incompatible(from_mapping(kind.config, before, source), config)
        if reason is not None:
            raise UserError(f"{self.uri} holds another run: {reason}; give another --out")
        self.run_id = identity
        with contextlib.suppress(TableNotFoundError, DamagedLog):  # the committer repairs its log, or says why not
            open_table(episodes_uri(self.corpus))  # refuses a newer schema
        self.state = self._saved()
        self.state.resumed()

    def _refuse_remains(self) -> None:
        """Raises `Damaged` where there was a run: another, begun in the same folder, would go on with its nets."""
        names = (run_files.CONFIG_FILE, run_files.RUN_FILE)
        there = [name for name in names if storage.exists(storage.join(self.uri, name))]
        if there or run_files.state_epochs(self.uri):
            lost = next(name for name in names if name not in there)
            advice = f"`{command('repair', self.uri)}` shows what can be done"
            raise Damaged(storage.join(self.uri, lost), f"it is missing, and the rest of a run is there; {advice}")

    def _identity(self) -> tuple[str, Sequence[Damaged]]:
        """The run's id. Raises `FileNotFoundError` where there is no run."""
        data, damaged = run_files.read_part(self.uri, run_files.RUN_FILE, "run", SCHEMA, run_id_of)
        return run_id_of(data, storage.join(self.uri, run_files.RUN_FILE)), damaged

    def reload(self) -> AnyState:
        """The state as it was saved last, or of a run that has not begun where nothing was saved."""
        return self._become(self._saved())

    def went_back(self, checkpoint: str | None, data: dict[str, Any] | None) -> AnyState:
        """The state as of a checkpoint that is used in place of a damaged one; None: as of the beginning.

        data: the state that it holds.
        """
        source = "the checkpoint" if checkpoint is None else self.checkpoint_uri(checkpoint)
        state = self._kind() if data is None else state_from(self._kind, data, source)
        state.checkpoint = checkpoint
        return self._become(state)

    def _become(self, state: AnyState) -> AnyState:
        state.wandb_id = state.wandb_id or self.state.wandb_id
        self.state = state
        return state

    @property
    def corpus(self) -> str:
        """Where the run's episodes go."""
        elsewhere = self.config.run.corpus
        return storage.normalise(elsewhere) if elsewhere else storage.join(self.uri, "corpus")

    def begin(self, about_agent: str) -> None:
        """Writes down what the run is, and that its state is this driver's from now on.

        about_agent: JSON of what is needed besides weights to use its policy.
        """
        self.set_aside()
        run = {"schema": SCHEMA, "run_id": self.run_id}
        config, agent = self.config.to_json(), json.loads(about_agent)
        sealed.write(
            run_files.begun_uri(self.uri, self._epoch), {"run": run, "agent": agent, "config": json.loads(config)}
        )
        sealed.write(storage.join(self.uri, run_files.RUN_FILE), run)
        sealed.write(storage.join(self.uri, run_files.AGENT_FILE), agent, indent=2)
        if self.config.run.corpus:
            storage.write(storage.join(self.uri, ELSEWHERE), self.corpus.encode(), durable=True)
        led = {ELSEWHERE: self.corpus} if self.config.run.corpus else {}
        vouched.write(self.uri, {**reach(self.config, self.uri), **_model_of(agent), **led})
        storage.write(storage.join(self.uri, run_files.CONFIG_FILE), config.encode(), durable=True)
        self.save()
        storage.delete(storage.join(self.uri, run_files.OLD_STATE_FILE))

    def checkpoint_uri(self, name: str) -> str:
        return run_files.checkpoint_uri(self.uri, name)

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints to go on from: that of the state, and the others from the newest on."""
        named = self.state.checkpoint
        if named is None:
            return []
        return [named, *(name for name in reversed(run_files.checkpoints(self.uri)) if name != named)]

    def save(self) -> None:
        """Writes the state; the checkpoint that it names must be complete. Raises `Fenced` if another has the run."""
        if self._lease is not None and self._lease.lost():
            raise Fenced(f"{self.uri} was taken over by another driver")
        self._written = asdict(self.state)
        sealed.write(run_files.state_uri(self.uri, self._epoch), self._written)

    def amend(self, **counts: Any) -> None:
        """Writes the state as it was saved last, with these counts: the rest of it belongs to its checkpoint."""
        if self._lease is not None and self._lease.lost():
            raise Fenced(f"{self.uri} was taken over by another driver")
        self._written |= counts
        sealed.write(run_files.state_uri(self.uri, self._epoch), self._written)

    def forget_old(self) -> None:
        """Deletes checkpoints and weights beyond the stated rule: the newest few, and of weights every k-th version.

        Where every k-th version would be more than `MOST_WEIGHTS`, it is every 2k-th, 4k-th, …. Of other drivers'
        states, and records of their beginnings, the last is left, and claims of versions go when they protect nothing
        any more.
        """
        newest, every = self.config.run.keep_checkpoints, self.config.run.keep_every
        names = [n for n in run_files.checkpoints(self.uri) if n != self.state.checkpoint]
        self._delete([self.checkpoint_uri(name) for name in names[: -newest + 1 or None]])
        found = run_files.versions(self.uri)
        while found and found[-1] // every > MOST_WEIGHTS:
            every *= 2
        old = [v for v in found[:-newest] if v % every and v != self.state.version]
        self._delete([run_files.weights_uri(self.uri, version) for version in old])
        self._delete(run_files.old_claims(self.uri))
        before = [epoch for epoch in run_files.state_epochs(self.uri) if epoch < self._epoch]
        self._delete([run_files.state_uri(self.uri, epoch) for epoch in before[:-1]])
        begun = [epoch for epoch in run_files.begun_epochs(self.uri) if epoch < self._epoch]
        self._delete([run_files.begun_uri(self.uri, epoch) for epoch in begun[:-1]])

    def _delete(self, uris: Sequence[str]) -> None:
        for uri in uris:
            storage.delete(uri)

    # -- what was damaged ---------------------------------------------------------------------------------------

    def pass_over(self, damaged: Iterable[Damaged], instead: str) -> None:
        """Remembers that damaged files were not used. instead: what is, for people."""
        known = {error.uri for error, _ in self._passed}
        self._passed += [(error, instead) for error in damaged if error.uri not in known]

    def tell_damage(self, message: Callable[[str], None]) -> None:
        """Says once, to a person and to the log, which files were passed over, and what was repaired.

        What was passed over is set aside.
        """
        self.set_aside()
        for error, instead in self._passed:
            name = error.uri.removeprefix(self.uri + "/")
            message(f"{name} is damaged ({error.reason}); the run goes on with {instead.removeprefix(self.uri + '/')}")
            note(self.run_id, "damaged", file=error.uri, why=error.reason, instead=instead)
        self._passed.clear()
        for sentence in self.mended:
            message(f"the corpus was repaired: {sentence.replace(self.uri + '/', '')}")
            note(self.run_id, "repaired", what=sentence)
        self.mended.clear()

    def set_aside(self) -> None:
        """Moves the damaged files that were passed over, before anything is written in their places."""
        if self._lease is None or not self._lease.lost():
            for error, _ in self._passed:
                if error.uri not in self._aside and storage.exists(error.uri):
                    run_files.set_aside(self.uri, error.uri)
                self._aside.add(error.uri)  # what is written there from now on is whole

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def _epoch(self) -> int:
        return self._lease.epoch if self._lease is not None else 0

    def _saved(self) -> AnyState:
        """What the newest driver has saved, or what is left where that is damaged: see `run_files.state_places`."""
        places = run_files.state_places(self.uri)
        found = sealed.load_newest_valid(places, self._load_state)
        self.pass_over(found.damaged, found.place or "what the archive holds")
        return found.value if found.value is not None else self._kind()

    def _load_state(self, uri: str) -> AnyState:
        if not uri.endswith(".safetensors"):
            return state_from(self._kind, sealed.read(uri, SCHEMA), uri)
        _, meta = weights.load(uri)
        state = state_from(self._kind, _held_state(meta, uri), uri)
        state.checkpoint = uri.rpartition("/")[2]
        return state


def run_id_of(data: dict[str, Any], source: str) -> str:
    """The run's id that `run.json` holds; `source` names it in errors. Raises `Damaged` where that is none."""
    run_id = data.get("run_id")
    if not isinstance(run_id, str) or not is_name(run_id):
        raise Damaged(source, "it does not hold the run's id")
    return run_id


#: In `reach.json`: the directory that the policy of a reasoning run began with, as agent.json names it.
AGENT_MODEL = "agent.policy.path"


def _model_of(agent: dict[str, Any]) -> dict[str, str]:
    path = agent.get("policy", {}).get("path")
    return {} if path is None else {AGENT_MODEL: path}


def _held_state(meta: dict[str, Any], uri: str) -> dict[str, Any]:
    if not isinstance(meta.get("state"), dict):
        raise Damaged(uri, "it holds no state of the run: an older version of the package wrote it")
    state: dict[str, Any] = meta["state"]
    return state
