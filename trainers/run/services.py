"""What every run needs, whatever it trains: archive, weights, rows of side tables, actors that end with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

import selfplay
from selfplay import store
from selfplay.actors.archivist import Archivist
from selfplay.actors.weights import Published, WeightServer
from selfplay.contract import EnvSpec
from selfplay.environments import registry
from selfplay.episode import Provenance
from selfplay.io import run_files, sealed
from selfplay.nets import weights
from selfplay.store import Receipt, Registration
from selfplay.store.table.closings import Ledger
from selfplay.store.table.drivers import FINISHED, INTERRUPTED
from selfplay.store.table.write import Block
from trainers.run.auto_compaction import Tidier
from trainers.run.event_log import note, note_block
from trainers.run.placement import Place
from trainers.run.run_folder import RunFolder
from trainers.run.settings import Experiment
from trainers.run.weights_lineage import Issue


class Office:
    """Keeps the books of one run. Its actors belong to the driver: none outlives it.

    place: where the actors that must not vanish go. net: JSON of the shape of what is trained. origin: of the run's
    episodes.
    """

    def __init__(
        self,
        config: Experiment,
        spec: EnvSpec,
        folder: RunFolder[Any],
        epoch: int,
        place: Place,
        ruleset: str,
        net: str,
        origin: str,
        game_string: str | None = None,
    ) -> None:
        self.folder, self.epoch, self.spec, self.policy_id = folder, epoch, spec, folder.run_id
        self.place = place
        self.provenance = Provenance(
            run_id=folder.run_id,
            env_id=spec.id,
            env_version=spec.version,
            ruleset_digest=ruleset,
            config_digest=config.digest,
            package_version=selfplay.__version__,
            host=os.uname().nodename,
            licence=spec.licence,
            code_commit=code_commit(),
            origin=origin,
        )
        self._configuration, self._net, self._game_string = config.to_json(), net, game_string
        self.weights: Any = None
        self.archivist: Any = None
        self.tidier: Any = None
        self._hired: list[Any] = []
        self._kept = run_files.versions(folder.uri)
        self._newest: Published | None = None
        self._epochs: dict[str, int] = {}  # the newest writer's, of each slot
        self._ledger = Ledger()
        self._lost_before = 0

    def open_archive(self, about_agent: str) -> int:
        """Starts the archivist; describes the run, its environment and its agent. Returns the corpus's version."""
        folder, spec, source = self.folder, self.spec, registry.source_of(self.spec)
        folder.begin(about_agent)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, **self.place.options()}
        told = (folder.uri, folder.corpus, folder.run_id, self.epoch)
        self.archivist = ray.remote(Archivist).options(**options).remote(*told)
        now = datetime.now(UTC)
        p = self.provenance
        environment = {
            "env_id": spec.id,
            "ruleset_digest": p.ruleset_digest,
            "game_string": self._game_string,
            "package": source.package or None,
            "package_version": source.version or None,
            "source_digest": source.digest,
            "source": source.text if source.kind == "file" else None,
            "licence": spec.licence,
            "added_at": now,
        }
        run = {
            "run_id": p.run_id,
            "epoch": self.epoch,
            "started_at": now,
            "env_id": spec.id,
            "config": self._configuration,
            "config_digest": p.config_digest,
            "code_commit": p.code_commit,
            "package_version": p.package_version,
            "host": p.host,
            "run_uri": folder.uri,
        }
        ray.get([self.archivist.add.remote("environments", [environment]), self.archivist.add.remote("runs", [run])])
        folder.mended += ray.get(self.archivist.mended.remote())
        before = self.lost_before()
        if self.epoch > 1:
            ray.get(self.archivist.close_earlier.remote(before))
        self._lost_before = before or 0
        self.weights = ray.remote(WeightServer).options(**options).remote()
        self.tidier = Tidier(folder.corpus, folder.run_id, self.place, folder.config.run.keep_days)
        return store.open(folder.corpus).version

    def publish_first(self, tensors: dict[str, Any]) -> None:
        """Version 0: the untrained net that the learner begins with, too."""
        weights.save(run_files.weights_uri(self.folder.uri, 0), tensors, {"kind": "weights", "version": 0})
        digest = weights.digest(tensors)
        self.enter_policy(0, digest, None)
        self._serve(0, digest, tensors)

    def publish_kept(self, first: Callable[[], dict[str, Any]]) -> None:
        """The newest version that the run kept whole, also one that was published after the last checkpoint.

        first: makes the untrained net's weights, for where none is whole.
        """
        places = {run_files.weights_uri(self.folder.uri, version): version for version in reversed(self._kept)}
        found = sealed.load_newest_valid(places, weights.load)
        self.folder.pass_over(found.damaged, found.place or "the untrained net")
        damaged = {error.uri for error in found.damaged}
        self._kept = sorted(version for uri, version in places.items() if uri not in damaged)
        if found.value is None or found.place is None:
            self.folder.set_aside()  # version 0 may be among them
            self.publish_first(first())
            return
        (tensors, meta), newest = found.value, places[found.place]
        made = (meta.get("parent_digest"), int(meta.get("step", 0)), int(meta.get("samples", 0)))
        self.enter_policy(newest, meta["digest"], *made)  # where its driver died before it could
        self._serve(newest, meta["digest"], tensors)

    def _serve(self, version: int, digest: str, tensors: Any) -> None:
        self.folder.state.version, self.folder.state.digest = version, digest
        self._kept = sorted({*self._kept, version})
        self._hand_out(version, digest, ray.put(tensors))

    def publish(self, version: int, digest: str, tensors: Any) -> None:
        """Hands out a version; tensors: the ObjectRef of its weights."""
        self._kept.append(version)
        self._hand_out(version, digest, tensors)
        note(self.folder.run_id, "published", version=version, digest=digest)

    def _hand_out(self, version: int, digest: str, tensors: Any) -> None:
        """Waits until the server has it: whoever asks from now on gets this version or a newer one."""
        self._newest = Published(version, digest, [tensors], run_files.weights_uri(self.folder.uri, version))
        ray.get(self.weights.publish.remote(self._newest))

    def enter_policy(self, version: int, digest: str, parent: str | None, step: int = 0, samples: int = 0) -> None:
        """A version's row in the policies table; there before anybody plays with it."""
        row = {
            "policy_id": self.policy_id,
            "version": version,
            "digest": digest,
            "run_id": self.folder.run_id,
            "created_at": datetime.now(UTC),
            "parent_digest": parent,
            "training_steps": step,
            "training_samples": samples,
            "uri": run_files.weights_uri(self.folder.uri, version),
            "net": self._net,
            "metrics": None,
        }
        self._enter("policies", row)

    def enter_use(self, issue: Issue, table_version: int) -> None:
        """What a version was made of: its row in the table of uses, there before anybody plays with it."""
        steps = [event for event in issue.events if event["what"] == "train"]
        row = {
            "run_id": self.folder.run_id,
            "version_in": issue.parent_version,
            "digest_in": issue.parent_digest,
            "version_out": issue.version,
            "digest_out": issue.digest,
            "first_step": steps[0]["first_step"] if steps else None,
            "last_step": steps[-1]["last_step"] if steps else None,
            "table_version": table_version,
            "events": issue.events,
            "sampler": issue.sampler,
            "code_commit": self.provenance.code_commit,
            "episodes": None,
            "recorded_at": datetime.now(UTC),
        }
        self._enter("uses", row)

    def archived(self, block: Block, receipt: Receipt) -> None:
        """A block is in the corpus."""
        note_block(block, receipt)
        self._ledger.archived(block, receipt)

    def lost(self) -> int | None:
        """Episodes that the run has lost in all its incarnations, as they died with their process; None: not known."""
        return None

    def lost_before(self) -> int | None:
        """The same of its earlier incarnations, once the archive is open to this one."""
        return self.lost()

    def close(self, interrupted: bool) -> None:
        """The last that a driver enters: what it has archived, and lost. Nothing may be archived after that."""
        how, lost = INTERRUPTED if interrupted else FINISHED, self.lost()
        mine = None if lost is None else lost - self._lost_before
        self._enter("closings", self._ledger.closing(self.folder.run_id, self.epoch, how, mine))

    def _enter(self, table: str, row: dict[str, Any]) -> None:
        self.tidier.entered(ray.get(self.archivist.add.remote(table, [row])))

    def register(self, slot: str) -> Registration:
        """Admits a new writer to a slot, or to one beside it, under an epoch above all that were there."""
        registration: Registration = ray.get(self.archivist.register.remote(slot))
        while registration.epoch <= self._epochs.get(registration.slot, 0):  # the archivist has died and forgotten it
            registration = ray.get(self.archivist.register.remote(slot))
        self._epochs[registration.slot] = registration.epoch
        ray.get(self.weights.publish.remote(self._newest))  # told again: the server may have been restarted
        return registration

    @property
    def newest(self) -> Published | None:
        """What was handed out last."""
        return self._newest

    def kept_versions(self) -> list[int]:
        """Versions whose weights the run keeps, ascending."""
        return self._kept

    def forget_old(self) -> None:
        """Deletes what the rule of the run does not keep."""
        self.folder.forget_old()
        there = set(run_files.versions(self.folder.uri))  # also what a learner wrote that died before it could say so
        self._kept = [version for version in self._kept if version in there]

    def dismiss(self) -> None:
        """Ends all actors."""
        for actor in [*self._hired, self.archivist, self.weights]:
            if actor is not None:
                ray.kill(actor)
        if self.tidier is not None:
            self.tidier.stop()

    def _own(self, actor: Any) -> Any:
        self._hired.append(actor)
        return actor


def code_commit() -> str | None:
    """The git commit of this clone, with "-dirty" where files differ from it; None outside a clone."""
    root = Path(selfplay.__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
