"""The actors of a run: how each is made, and what it is told."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

import selfplay
from selfplay import agent, registry, run_files, store
from selfplay.actors.archivist import Archivist
from selfplay.actors.examiner import Examiner
from selfplay.actors.player import Player, PlayerJob
from selfplay.actors.weights import Published, WeightServer
from selfplay.contract import GameSpec
from selfplay.episode import Provenance
from selfplay.episode.training import TargetSettings
from selfplay.errors import UserError
from selfplay.game import load, unsearchable
from selfplay.generation import PlaySettings
from selfplay.nets import weights
from selfplay.nets.config import NetConfig
from selfplay.playthrough import ruleset_digest
from selfplay.search import SearchConfig
from trainers.cluster import Sizing
from trainers.config import RunConfig
from trainers.run_folder import RunFolder

if TYPE_CHECKING:
    from trainers.student import Issue, Progress


class Crew:
    """Makes the actors of one run. They belong to the driver: none outlives it."""

    def __init__(self, config: RunConfig, spec: GameSpec, folder: RunFolder, epoch: int, sizing: Sizing) -> None:
        self.config, self.folder, self.epoch, self.sizing = config, folder, epoch, sizing
        self.game = load(spec)
        reason = unsearchable(self.game)
        if reason is not None:
            raise UserError(f"{spec.id} cannot be played by this search: {reason}")
        self.env = registry.pack(spec)
        self.net = net_config(config, self.game)
        self.search = search_config(config)
        self.policy_id = folder.run_id
        self.provenance = Provenance(
            run_id=folder.run_id,
            env_id=spec.id,
            env_version=spec.version,
            ruleset_digest=ruleset_digest(spec),
            config_digest=config.digest,
            package_version=selfplay.__version__,
            host=os.uname().nodename,
            licence=spec.licence,
            code_commit=code_commit(),
        )
        self.weights: Any = None
        self.archivist: Any = None
        self._hired: list[Any] = []
        self._kept = run_files.versions(folder.uri)
        self._newest: Published | None = None
        self._epochs: dict[str, int] = {}  # the newest writer's, of each slot

    def open_archive(self) -> int:
        """Starts the archivist; describes the run, its environment and its agent. Returns the corpus's version."""
        folder, spec, source = self.folder, self.game.spec, registry.source_of(self.game.spec)
        at_play = replace(self.search, c_scale=self.config.evaluation.c_scale)
        images = self.config.evaluation.images
        folder.begin(agent.describe(self.game, self.net, at_play, self.policy_id, images))
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        self.archivist = ray.remote(Archivist).options(**options).remote(folder.corpus, folder.run_id, self.epoch)
        now = datetime.now(UTC)
        p = self.provenance
        environment = {
            "env_id": spec.id,
            "ruleset_digest": p.ruleset_digest,
            "game_string": self.game.string,
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
            "config": self.config.to_json(),
            "config_digest": p.config_digest,
            "code_commit": p.code_commit,
            "package_version": p.package_version,
            "host": p.host,
            "run_uri": folder.uri,
        }
        ray.get([self.archivist.add.remote("environments", [environment]), self.archivist.add.remote("runs", [run])])
        self.weights = ray.remote(WeightServer).options(**options).remote()
        return store.open(folder.corpus).version

    def publish_first(self) -> None:
        """Version 0: the untrained net that the learner begins with, too."""
        from selfplay.nets.policy_value import build, to_arrays

        tensors = to_arrays(build(self.net, self.config.run.seed))
        weights.save(run_files.weights_uri(self.folder.uri, 0), tensors, {"kind": "weights", "version": 0})
        digest = weights.digest(tensors)
        self.enter_policy(0, digest, "", None)
        self._serve(0, digest, tensors)

    def publish_kept(self) -> None:
        """The newest version that the run kept, also one that was published after the last checkpoint."""
        newest = self._kept[-1]
        tensors, meta = weights.load(run_files.weights_uri(self.folder.uri, newest))
        self.enter_policy(newest, meta["digest"], "", None)
        self._serve(newest, meta["digest"], tensors)

    def _serve(self, version: int, digest: str, tensors: Any) -> None:
        self.folder.state.version, self.folder.state.digest = version, digest
        self._kept = sorted({*self._kept, version})
        self._hand_out(Published(version, digest, [ray.put(tensors)]))

    def publish(self, version: int, digest: str, tensors: Any) -> None:
        """Hands out a version; tensors: the ObjectRef of its weights."""
        self._kept.append(version)
        self._hand_out(Published(version, digest, [tensors]))

    def _hand_out(self, newest: Published) -> None:
        """Waits until the server has it: whoever asks from now on gets this version or a newer one."""
        self._newest = newest
        ray.get(self.weights.publish.remote(newest))

    def enter_policy(self, version: int, digest: str, parent: str, progress: Progress | None) -> None:
        """A version's row in the policies table; there before anybody plays with it."""
        row = {
            "policy_id": self.policy_id,
            "version": version,
            "digest": digest,
            "run_id": self.folder.run_id,
            "created_at": datetime.now(UTC),
            "parent_digest": parent or None,
            "training_steps": progress.step if progress else 0,
            "training_samples": progress.samples if progress else 0,
            "uri": run_files.weights_uri(self.folder.uri, version),
            "net": self.net.to_json(),
            "metrics": None,
        }
        ray.get(self.archivist.add.remote("policies", [row]))

    def enter_use(self, version: int, issue: Issue, version_in: int, digest_in: str, table_version: int) -> None:
        """What a version was made of: its row in the table of uses, there before anybody plays with it."""
        steps = [event for event in issue.events if event["what"] == "train"]
        row = {
            "run_id": self.folder.run_id,
            "version_in": version_in,
            "digest_in": digest_in,
            "version_out": version,
            "digest_out": issue.digest,
            "first_step": steps[0]["first_step"] if steps else None,
            "last_step": steps[-1]["last_step"] if steps else None,
            "table_version": table_version,
            "events": issue.events,
            "sampler": issue.sampler,
            "code_commit": self.provenance.code_commit,
            "recorded_at": datetime.now(UTC),
        }
        ray.get(self.archivist.add.remote("uses", [row]))

    def kept_versions(self) -> list[int]:
        """Versions whose weights the run keeps, ascending."""
        return self._kept

    def forget_old(self) -> None:
        """Deletes what the rule of the run does not keep."""
        self.folder.forget_old()
        self._kept = run_files.versions(self.folder.uri)

    def player(self, slot: str) -> Any:
        """A new player for a slot, under a new epoch."""
        c, s = self.config.selfplay, self.config.search
        registration = ray.get(self.archivist.register.remote(slot))
        while registration.epoch <= self._epochs.get(slot, 0):  # the archivist has died and forgotten it
            registration = ray.get(self.archivist.register.remote(slot))
        self._epochs[slot] = registration.epoch
        ray.get(self.weights.publish.remote(self._newest))  # told again: the server may have been restarted
        job = PlayerJob(
            env=self.env,
            net=self.net.to_json(),
            search=self.search,
            play=PlaySettings(
                slots=c.games,
                simulations=s.simulations,
                cheap_simulations=s.cheap_simulations,
                full_fraction=s.full_fraction,
                opening_fraction=c.opening_fraction,
                opening_plies=c.opening_plies,
                opening_choices=c.opening_choices,
                temperature=c.temperature,
                temperature_plies=c.temperature_plies,
                dirichlet_alpha=s.dirichlet_alpha,
                resign_threshold=c.resign_threshold,
                resign_moves=c.resign_moves,
                resign_playon=c.resign_playon,
                ply_limit=c.ply_limit or self.game.spec.ply_limit,
                cache_entries=c.cache_entries,
            ),
            provenance=self.provenance,
            corpus=self.folder.corpus,
            policy_id=self.policy_id,
            slot=slot,
            epoch=registration.epoch,
            first_number=0,
            first_block=registration.next_number,
            seed=(self.config.run.seed, int(slot[1:]), registration.epoch),
            dtype=c.dtype,
            device=c.device,
            threads=1,
        )
        gpus = 0.0 if c.device == "cpu" else self._gpu_share() / self.sizing.players
        return self._own(
            ray.remote(Player).options(num_cpus=1, num_gpus=gpus, max_restarts=0).remote(job, self.weights)
        )

    def student(self) -> Any:
        """The learner's actor."""
        from selfplay.nets.inference import pick_device
        from trainers.learner_settings import LearnerSettings
        from trainers.student import Student, StudentJob
        from trainers.window import WindowSettings

        c = self.config.learner
        gpus = 0.0 if c.device == "cpu" or c.learners > 1 else min(1.0, self._gpu_share())
        job = StudentJob(
            env=self.env,
            net=self.net.to_json(),
            learner=LearnerSettings(
                batch=c.batch,
                optimizer=c.optimizer,
                lr=c.lr,
                weight_decay=c.weight_decay,
                grad_clip=c.grad_clip,
                learners=c.learners,
                device=pick_device(c.device) if not self.sizing.joined else c.device,
                bf16=None if c.bf16 == "auto" else c.bf16,
                ema=c.ema,
                threads=max(1, self.sizing.cores // 4),
                seed=self.config.run.seed,
                window=WindowSettings(c.window_initial, c.window_alpha, c.window_beta, c.window_max),
            ),
            targets=TargetSettings(
                algorithm=self.config.search.algorithm,
                c_visit=self.config.search.c_visit,
                c_scale=self.config.search.c_scale,
                z_weight=c.z_weight,
                q_weight=c.q_weight,
                truncated_weight=self.config.selfplay.truncated_value_weight,
            ),
            samples_per_position=c.samples_per_position,
            first_rows=c.window_initial,
            run_uri=self.folder.uri,
            corpus=self.folder.corpus,
            run_id=self.folder.run_id,
        )
        return self._own(ray.remote(Student).options(num_cpus=0, num_gpus=gpus, max_restarts=0).remote(job))

    def examiner(self) -> Any:
        """The actor that measures strength."""
        actor = ray.remote(Examiner).options(num_cpus=0, max_restarts=0)
        return self._own(actor.remote(self.env, self.folder.uri, self.config.run.seed))

    def dismiss(self) -> None:
        """Ends all actors."""
        for actor in [*self._hired, self.archivist, self.weights]:
            if actor is not None:
                ray.kill(actor)

    def _own(self, actor: Any) -> Any:
        self._hired.append(actor)
        return actor

    def _gpu_share(self) -> float:
        """Of the GPUs, one half plays and one half learns."""
        return self.sizing.gpus / 2


def net_config(config: RunConfig, game: Any) -> NetConfig:
    """The net of a run: its settings in the shape of its game."""
    n = config.net
    return NetConfig(
        input_shape=game.encoder.shape,
        num_actions=game.num_actions,
        outcome=game.outcomes is not None,
        trunk=n.trunk,
        channels=n.channels,
        blocks=n.blocks,
        hidden=n.hidden,
        layers=n.layers,
        policy_planes=game.spec.policy_planes,
    )


def search_config(config: RunConfig) -> SearchConfig:
    """The search of a run."""
    s = config.search
    return SearchConfig(
        algorithm=s.algorithm,
        considered=s.considered,
        c_visit=s.c_visit,
        c_scale=s.c_scale,
        c_init=s.c_init,
        c_base=s.c_base,
        fpu_reduction=s.fpu_reduction,
        dirichlet_fraction=s.dirichlet_fraction,
    )


def code_commit() -> str | None:
    """The git commit of this clone, with "-dirty" where files differ from it; None outside a clone."""
    root = Path(selfplay.__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
