"""The actors of a run: how each is made, and what it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray

from selfplay import agent
from selfplay.actors.examiner import Examiner
from selfplay.actors.player import Player, PlayerJob
from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.game import load, unsearchable
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode.training import TargetSettings
from selfplay.errors import UserError
from selfplay.nets.config import NetConfig
from selfplay.play.generator import PlaySettings
from selfplay.search import SearchConfig
from selfplay.store.table.counters import player_seed
from trainers.alphazero.config import RunConfig, with_ply_limit
from trainers.alphazero.sizing import Sizing
from trainers.alphazero.state import State
from trainers.run import placement
from trainers.run.placement import Place
from trainers.run.run_folder import RunFolder
from trainers.run.services import Office


class Crew(Office):
    """Makes the actors of one run of self-play."""

    def __init__(
        self, config: RunConfig, spec: GameSpec, folder: RunFolder[State], epoch: int, sizing: Sizing, place: Place
    ) -> None:
        self.config = config = with_ply_limit(config, spec.ply_limit)
        self.sizing = sizing
        self.game = load(spec)
        reason = unsearchable(self.game)
        if reason is not None:
            raise UserError(f"{spec.id} cannot be played by this search: {reason}")
        self.env = registry.pack(spec)
        self.net = net_config(config, self.game)
        self.search = search_config(config)
        net = self.net.to_json()
        super().__init__(config, spec, folder, epoch, place, ruleset_digest(spec), net, "self_play", self.game.string)

    def about_agent(self) -> str:
        """What `Agent.load` needs besides weights."""
        at_play = replace(self.search, c_scale=self.config.evaluation.c_scale)
        return agent.describe(self.game, self.net, at_play, self.policy_id, self.config.evaluation.images)

    def lost(self) -> int:
        return self.folder.state.lost_games

    def first_weights(self) -> dict[str, Any]:
        """Those of the untrained net."""
        from selfplay.nets.policy_value import build, to_arrays

        return to_arrays(build(self.net, self.config.run.seed))

    def player(self, slot: str) -> Any:
        """A new player for a slot, under a new epoch."""
        job = self.player_job(slot)
        gpus = 0.0 if job.device == "cpu" else self._gpu_share() / self.sizing.players
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, **placement.ANYWHERE}
        return self._own(ray.remote(Player).options(**options).remote(job, self.weights))

    def player_job(self, slot: str) -> PlayerJob:
        """What the next player of a slot is told. It writes to the slot that it is given: this one, or one beside."""
        c, s = self.config.selfplay, self.config.search
        registration = self.register(slot)
        return PlayerJob(
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
            slot=registration.slot,
            epoch=registration.epoch,
            first_number=0,
            first_block=registration.next_number,
            seed=player_seed(self.config.run.seed, registration.slot, registration.epoch),
            dtype=c.dtype,
            backend=c.backend,
            device="cpu" if self.place.group is not None and c.device == "auto" else c.device,
            threads=1,
            measure=not self.config.run.deterministic,
        )

    def players_wanted(self) -> int:
        """How many there should be now: on a cluster of changing size as many as it has cores, unless set."""
        changing = self.sizing.joined and self.config.selfplay.actors == "auto" and not self.config.run.deterministic
        return max(1, placement.cores()) if changing else self.sizing.players

    @property
    def learner_threads(self) -> int | None:
        """Of torch in the learner, beside busy players; None: as torch chooses."""
        asked = self.config.learner.threads
        if isinstance(asked, int):
            return asked
        cores = placement.cores_of_largest() if self.sizing.joined else self.sizing.cores
        return None if placement.steady_alone() else max(1, cores // 4)

    def student(self) -> Any:
        """The learner's actor."""
        from selfplay.nets.inference import pick_device
        from trainers.alphazero.learner_actor import Student, StudentJob
        from trainers.alphazero.learner_settings import LearnerSettings
        from trainers.alphazero.replay_window import WindowSettings

        c = self.config.learner
        gpus = 0.0 if c.device == "cpu" or c.learners > 1 else self.place.gpus or min(1.0, self._gpu_share())
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
                layout=None if c.layout == "auto" else c.layout,
                ema=c.ema,
                threads=self.learner_threads,
                measure=not self.config.run.deterministic,
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
        options = {"num_cpus": 0, "num_gpus": gpus, "max_restarts": 0, **self.place.options()}
        return self._own(ray.remote(Student).options(**options).remote(job))

    def examiner(self) -> Any:
        """The actor that measures strength."""
        actor = ray.remote(Examiner).options(num_cpus=0, max_restarts=0, **self.place.options())
        return self._own(actor.remote(self.env, self.folder.uri, self.config.run.seed))

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
