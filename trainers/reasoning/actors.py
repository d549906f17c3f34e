"""The actors of a reasoning run: how each is made, and what it is told."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from selfplay import store, vouched
from selfplay.actors.reasoner import Reasoner, ReasonerJob
from selfplay.contract import TaskSpec
from selfplay.environments import registry
from selfplay.environments.task import Task, ruleset_digest
from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, storage
from selfplay.nets.inference import pick_device
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.policy import fresh, load
from selfplay.nets.language.tokenizer import Tokenizer, of_characters
from selfplay.rollout.endpoint import Endpoint
from selfplay.store.table.counters import numbers_of
from selfplay.store.verify import spelling
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.learner_actor import Tutor, TutorJob
from trainers.reasoning.lost_episodes import missing
from trainers.reasoning.memory_budget import Footprint, parameters_of, refuse_too_large
from trainers.reasoning.problem_splits import refuse_empty_sides
from trainers.reasoning.state import ReasoningState
from trainers.run import placement
from trainers.run.placement import Place
from trainers.run.run_folder import AGENT_MODEL, RunFolder
from trainers.run.services import Office

SCHEMA = 1
#: Problems of a level whose texts decide which characters a fresh policy has tokens for.
_READ = 64


@dataclass(frozen=True)
class ReasoningSizing:
    """What a run uses. reasoners: generating processes. gpus: of the machines, 0 for CPU only."""

    reasoners: int
    cores: int
    gpus: int
    joined: bool

    def sentence(self, config: ReasoningConfig, parameters: int) -> str:
        where = "a Ray cluster" if self.joined else "this machine"
        device = f"{self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else "no GPU"
        return (
            f"{where}: {self.cores} cores, {device}; {self.reasoners} generating "
            f"process{'es' * (self.reasoners != 1)} of {config.generation.rows} rows, one learner, "
            f"{parameters / 1e6:.3g} M parameters"
        )


def size(config: ReasoningConfig, joined: bool) -> ReasoningSizing:
    """How many reasoners: as configured, or one a core (a GPU). Raises `UserError` for a GPU that is not there."""
    cores, gpus = max(1, placement.cores()), placement.gpus()
    devices = {"generation.device": config.generation.device, "learner.device": config.learner.device}
    for name, device in devices.items():
        if device == "cuda" and not gpus:
            raise UserError(f"{name} = cuda, but Ray sees no GPU here; say {name}=auto or run where there is one")
    if config.generation.engine == "vllm" and (not gpus or config.generation.device == "cpu"):
        raise UserError("generation.engine = vllm needs a GPU, and Ray sees none here; say generation.engine=own")
    wanted = config.generation.actors
    if isinstance(wanted, int):
        return ReasoningSizing(wanted, cores, gpus, joined)
    on_gpu = gpus and config.generation.device != "cpu"
    overlapped = config.learner.max_staleness > 0
    reasoners = max(1, gpus - (gpus > 1)) if on_gpu else max(1, cores - overlapped)
    return ReasoningSizing(reasoners, cores, gpus, joined)


def policy_spec(config: ReasoningConfig, task: Task) -> PolicySpec:
    """The run's policy: as its directory says, or fresh with the characters of the task.

    Raises `UserError` for a directory that is none, and for a tokenizer that cannot write what the task needs.
    """
    p = config.policy
    if p.path is not None:
        found = load(p.path, p.value_head, p.lora_rank, p.lora_alpha, p.dtype)
        tokenizer = Tokenizer(found.tokenizer, f"the tokenizer in {p.path}")
        for text in texts_of(task, 8):
            if tokenizer.decode(tokenizer.encode(text)) != text:
                raise UserError(f"the tokenizer in {p.path} cannot write {text[:60]!r}, which {task.spec.id} needs")
        return found
    many = _READ if task.spec.solve is not None or task.spec.play is not None else 32 * _READ
    alphabet = set(p.alphabet) or {c for text in texts_of(task, many) for c in text}
    if not p.alphabet and task.spec.respond is not None:  # what is said to a strange answer is in no solution
        alphabet |= set(string.printable)
    tokenizer = of_characters(alphabet)
    shape = small(tokenizer.size, p.layers, p.hidden, p.heads, p.context, p.positions)
    return PolicySpec(None, shape, tokenizer.files, p.context, p.value_head, dtype=p.dtype)


def texts_of(task: Task, problems: int) -> list[str]:
    """What is asked and answered in some problems of every level."""
    spec, texts = task.spec, []
    for level in spec.difficulties:
        for seed in range(problems):
            posed = task.pose(seed, level)
            texts += [message.content for message in posed.messages]
            if spec.play is not None:
                texts += [turn.text for turn in task.solved(posed).turns]
            texts += [task.gold(posed.problem)] if spec.gold is not None else []
            texts += [task.solution(posed.problem)] if spec.solve is not None else []
    return texts


def _kept(folder: RunFolder[ReasoningState]) -> dict[str, Any] | None:
    """What the run said of its policy and its task when it began; None for one that has not begun. Raises `Damaged`."""
    if folder.new:
        return None
    try:
        about, damaged = run_files.read_part(folder.uri, run_files.AGENT_FILE, "agent")
    except FileNotFoundError:
        return None
    folder.pass_over(damaged, "the record of the last start")
    return about


def begun_with(spec: TaskSpec, about: Mapping[str, Any] | None) -> TaskSpec:
    """The task of a run: the version that it began with, as far as it is here, whatever is the newest now.

    Another version may hold other problems out, which the run has learned from. about: what the run said of itself.
    """
    env = (about or {}).get("env")
    began = env.get("id") if isinstance(env, dict) else None
    if not isinstance(began, str) or began == spec.id or began.rpartition("-v")[0] != spec.name:
        return spec
    known = registry.known(began)
    return known if isinstance(known, TaskSpec) else spec


def _kept_policy(
    folder: RunFolder[ReasoningState], config: ReasoningConfig, about: Mapping[str, Any] | None
) -> PolicySpec | None:
    """The policy as the run began with it; None for a run that has not begun. Raises `Damaged`."""
    if about is None:
        return None
    try:
        spec = PolicySpec.from_json(json.dumps(about["policy"]))
        named = None if config.policy.path is None else str(Path(config.policy.path).expanduser().resolve())
        if spec.path not in (named, vouched.read(folder.uri).get(AGENT_MODEL)):
            raise ValueError(f"its model is in {spec.path}, and policy.path is {config.policy.path}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(storage.join(folder.uri, run_files.AGENT_FILE), f"it describes no policy ({error})") from error
    return spec


def endpoint_of(config: ReasoningConfig) -> Endpoint | None:
    """The frozen policy behind HTTP that takes part. Raises `UserError` for a URL that is none."""
    e = config.endpoint
    return Endpoint(e.url, e.model, e.key_variable, e.in_flight, e.timeout_s) if e.url else None


def refuse_gaps(config: ReasoningConfig, policy: PolicySpec) -> None:
    """Raises `UserError` where positions with gaps are wanted of a model that `transformers` computes."""
    if config.learner.gaps and (policy.config is None or policy.lora_rank):
        raise UserError("learner.gaps needs a model that this project's transformer computes, without adapters")


class ReasoningCrew(Office):
    """Makes the actors of one reasoning run."""

    def __init__(
        self,
        config: ReasoningConfig,
        spec: TaskSpec,
        folder: RunFolder[ReasoningState],
        epoch: int,
        sizing: ReasoningSizing,
        place: Place,
    ) -> None:
        about = _kept(folder)
        self.lost_episodes = 0  # in all incarnations of the run, as they died with their process
        self.config, self.sizing, spec = config, sizing, begun_with(spec, about)
        self.task = Task(spec)
        self.env = registry.pack(spec)
        refuse_empty_sides(config, self.task)
        self.policy = _kept_policy(folder, config, about) or policy_spec(config, self.task)
        self.parameters = parameters_of(self.policy)
        self._refuse_too_large()
        if config.learner.overlong == "penalty" and spec.max_turns > 1:
            raise UserError(f"learner.overlong = penalty is for tasks of one answer; {spec.id} has several turns")
        refuse_gaps(config, self.policy)
        endpoint_of(config)
        if set(config.endpoint.seats) >= set(range(spec.seats)) or max(config.endpoint.seats, default=0) >= spec.seats:
            raise UserError(f"endpoint.seats names seats of {spec.id}, which has {spec.seats}, and leaves one to learn")
        net = json.dumps(json.loads(self.policy.to_json()) | {"tokenizer": "see the run's agent.json"})
        super().__init__(config, spec, folder, epoch, place, ruleset_digest(self.task), net, "cot_rl")

    def _refuse_too_large(self) -> None:
        c = self.config
        trained = self.parameters if not c.policy.lora_rank else self.parameters // 50
        footprint = Footprint(self.parameters, trained, c.policy.dtype)
        if not self.sizing.joined:
            refuse_too_large(footprint, pick_device(c.learner.device))

    @property
    def needs(self) -> str:
        """What a reasoner waits for."""
        return "core" if self.config.generation.device == "cpu" or not self._gpus(learner=False) else "GPU"

    def reasoners_wanted(self) -> int:
        """How many there should be now: on a cluster of changing size as many as it has room for, unless set."""
        changing = self.sizing.joined and self.config.generation.actors == "auto"
        return size(self.config, joined=True).reasoners if changing else self.sizing.reasoners

    def open_archive(self, about_agent: str) -> int:
        """As `Office.open_archive`; the archive is given the tokenizer, too, so that anyone can read tokens."""
        version = super().open_archive(about_agent)
        kept = spelling.kept(self.policy.tokenizer)
        if kept is not None:
            digest, files = kept
            self._enter("tokenizers", {"digest": digest, "files": files, "added_at": datetime.now(UTC)})
        return version

    def lost(self) -> int:
        return self.lost_episodes

    def lost_before(self) -> int:
        """What is counted in the run's state, and what was asked for when that was written and never archived."""
        folder, before = self.folder, self.folder.state
        version = store.open(folder.corpus).version
        died = missing(folder.corpus, folder.run_id, version, before.in_flight, before.since)
        self.lost_episodes = before.lost_episodes + died
        return self.lost_episodes

    def about_agent(self) -> str:
        """What is needed besides weights to use the run's policy."""
        plain = {"schema": SCHEMA, "kind": "reasoning", "policy_id": self.policy_id, "env": {"id": self.spec.id}}
        return json.dumps({**plain, "policy": json.loads(self.policy.to_json())}, indent=2)

    def first_weights(self) -> dict[str, Any]:
        """Those of the untrained policy."""
        return fresh(self.policy, self.config.run.seed).to_arrays()

    def reasoner(self, slot: str) -> Any:
        """A new reasoner for a slot, under a new epoch."""
        job = self.reasoner_job(slot)
        gpus = 0.0 if job.device == "cpu" else self._gpus(learner=False)
        cpus = min(0.5, 0.5 * self.sizing.cores / self.sizing.reasoners)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, **placement.ANYWHERE}
        return self._own(ray.remote(Reasoner).options(**options).remote(job, self.weights))

    def reasoner_job(self, slot: str) -> ReasonerJob:
        """What the next reasoner of a slot is told. It writes to the slot that it is given: this one, or one beside."""
        g, registration = self.config.generation, self.register(slot)
        number, times = numbers_of(registration.slot)
        return ReasonerJob(
            env=self.env,
            policy=self.policy.to_json(),
            provenance=self.provenance,
            corpus=self.folder.corpus,
            policy_id=self.policy_id,
            slot=registration.slot,
            epoch=registration.epoch,
            first_block=registration.next_number,
            seed=((self.config.run.seed + times * 1_000_000) * 1_000 + number) * 1_000_000 + registration.epoch,
            rows=g.rows,
            device=g.device,
            threads=1 if self.sizing.reasoners > 1 else max(1, self.sizing.cores),
            engine=g.engine,
            gpu_memory=g.gpu_memory,
            endpoint=endpoint_of(self.config),
            endpoint_seats=self.config.endpoint.seats,
            judges=self._judges(),
            budget_s=self.config.task.budget_s,
            on_timeout=self.config.task.timeout,
        )

    def _judges(self) -> int:
        """Transcripts that a reasoner has judged at once: as set, or one a core of its share; two, so that one that
        hangs does not stop the others.
        """
        asked = self.config.task.judges
        return asked if isinstance(asked, int) else min(32, max(2, self.sizing.cores // self.sizing.reasoners))

    def tutor(self) -> Any:
        """The learner's actor."""
        c, cores = self.config, self.sizing.cores
        asked = c.learner.threads
        if self.sizing.joined:
            cores = placement.cores_of_largest()
        alone = cores if c.learner.max_staleness == 0 else max(1, cores // 2)
        if placement.steady_alone():
            alone = 0  # all that its node has
        threads = asked if isinstance(asked, int) else alone
        job = TutorJob(
            policy=self.policy.to_json(),
            config=c.to_json(),
            seats=self.task.spec.seats,
            threads=threads,
            run_uri=self.folder.uri,
            corpus=self.folder.corpus,
            run_id=self.folder.run_id,
            held_out_of=self.task.spec.held_out_of,
        )
        gpus = 0.0 if c.learner.device == "cpu" else self._gpus(learner=True)
        options = {"num_cpus": 0, "num_gpus": gpus, "max_restarts": 0, **self.place.options()}
        return self._own(ray.remote(Tutor).options(**options).remote(job))

    def _gpus(self, learner: bool) -> float:
        """Of one actor. One GPU is shared by all; of several the learner has one of its own, the rest is shared out.

        Where the learner has a place of its own, each reasoner asks for a whole GPU: an autoscaler brings it.
        """
        gpus, reasoners = self.sizing.gpus, self.sizing.reasoners
        if self.place.group is not None:
            alone = self.config.generation.device == "cuda" or gpus > self.place.gpus
            return self.place.gpus if learner else float(alone)
        if gpus <= 1:
            return gpus / 2 if learner else gpus / 2 / reasoners
        return 1.0 if learner else 1.0 / math.ceil(reasoners / (gpus - 1))
