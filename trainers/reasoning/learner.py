"""The learner of a language model: an RLlib Learner, and the steps that the algorithms take with it.

A plain class; the actor around it is `trainers.reasoning.learner_actor`.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from selfplay.errors import Damaged, UserError
from selfplay.nets import weights
from selfplay.nets.inference import has_bfloat16, pick_device
from selfplay.nets.language.config import PolicySpec
from selfplay.rollout.sampling import Sampling
from trainers.reasoning.advantages import loss_of, prepare
from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.algorithms.sft import gapped
from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.reasoning.arithmetic import LanguageTraining
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.policy_loss import Size
from trainers.reasoning.rllib_module import MODULE, LanguageLearner, LanguageModule, Objective
from trainers.reasoning.token_batch import Array, Lessons
from trainers.run.fastest import fastest

SCHEMA = 1
#: About how many tokens the passes have that are timed.
_TRIED_TOKENS = 2048
#: Lines on which the divergence from the reference is measured where it is no part of the loss.
_KL_LINES = 64


class ReasoningLearner:
    """Holds policy, optimiser, and the reference that reinforcement learning began with.

    step, samples: optimiser steps taken and lines trained on, since the run began. training: the arithmetic in use.
    """

    def __init__(
        self,
        policy: PolicySpec,
        settings: LearnerSettings,
        sampling: Sampling,
        seats: int,
        seed: int,
        threads: int,
        measure: bool = False,
    ) -> None:
        """measure: tries, at the first step and on its lines, what is fastest here of what the settings leave open."""
        device = pick_device(settings.device)
        fast = policy.dtype == "bfloat16" or (device == "cuda" and has_bfloat16(device))
        bf16 = fast if settings.bf16 == "auto" else settings.bf16
        self.settings, self.sampling, self.seats, self.seed = settings, sampling, seats, seed
        self.step = self.samples = 0
        self.baselines = SeatBaselines()
        self._reference: dict[str, Array] | None = None
        self._loss = loss_of(settings, sampling.max_tokens)
        self.training = LanguageTraining(bf16, threads or torch.get_num_threads())
        self._open = self._ways(device) if measure else []
        options = {"threads": threads, "weight_decay": settings.weight_decay, "grad_clip": settings.grad_clip}
        config = AlgorithmConfig().framework("torch")
        config.training(learner_class=LanguageLearner, learner_config_dict=options)
        config.learners(num_learners=0, num_gpus_per_learner=1 if device == "cuda" else 0)
        spec = RLModuleSpec(
            module_class=LanguageModule,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
            action_space=gymnasium.spaces.Discrete(2),
            model_config={"policy": policy.to_json(), "seed": seed, "bf16": bf16},
        )
        self._group = LearnerGroup(config=config, module_spec=MultiRLModuleSpec(rl_module_specs={MODULE: spec}))
        learner: LanguageLearner = self._group._learner
        self.learner = learner

    # -- steps --------------------------------------------------------------------------------------------------

    def supervise(self, lessons: Lessons, lr: float) -> dict[str, float]:
        """One step of imitation on all of `lessons`; "weight" in its numbers, if there, says how much a line counts."""
        if self.settings.gaps:
            rng = np.random.default_rng([self.seed, 9, self.step])
            context = self.learner.policy.spec.context
            lessons.tokens["positions"] = gapped(lessons.lengths(), self.settings.gaps, context, rng)
        return self._train(lessons, Objective("sft"), lr, Size(0, 0), plain=True)

    def reinforce(self, lessons: Lessons, round_number: int, lr: float) -> dict[str, float]:
        """Learns from one round of samples as the run's algorithm does; returns what is to be reported."""
        began = time.perf_counter()
        s = self.settings
        ready = prepare(lessons, s, self.sampling.max_tokens, self.look, self.baselines, self.seats)
        report = dict(ready.report)
        chosen = ready.lessons
        if not len(chosen):
            return {**report, "seconds": time.perf_counter() - began}
        several = s.epochs * s.minibatches > 1 or s.max_staleness > 0
        if several and "proximal" not in chosen.tokens:
            chosen.tokens["proximal"] = self.look(chosen)["logprobs"]
        if s.kl:
            chosen.tokens["reference"] = self._by_reference(chosen)
        value_coef = s.value_coef if ALGORITHMS[s.algorithm].value_head else 0.0
        goal = Objective("policy", self._loss, value_coef, s.value_clip, self.sampling)
        rng = np.random.default_rng([self.seed, 7, round_number])
        reports: list[dict[str, float]] = []
        for _ in range(s.epochs):
            order = rng.permutation(len(chosen))
            for part in np.array_split(order, min(s.minibatches, len(order))):
                share = len(part) / len(chosen)
                every = Size(0.0, ready.lines * share) if s.average == "constant" else Size(0.0, 0.0)
                reports.append(self._train(chosen.take(np.sort(part)), goal, lr, every))
        for name in reports[0]:
            report[name] = float(np.mean([one[name] for one in reports]))
        report["kl_to_start"] = self._drift(chosen, rng) if self._reference is not None else 0.0
        report["seconds"] = time.perf_counter() - began
        return report

    def _train(
        self, lessons: Lessons, goal: Objective, lr: float, least: Size, plain: bool = False
    ) -> dict[str, float]:
        """least: a `Size` that counts lines that are not here, too; 0: only these count."""
        if self._open:
            self._choose(lessons)
        weight = lessons.numbers.get("weight", np.ones(len(lessons)))
        tokens = np.array([int(mask.sum()) for mask in lessons.tokens["mask"]], np.float64)
        size = Size(float((weight * tokens).sum()), float((weight * (tokens > 0)).sum()))
        size = Size(size.tokens, max(size.sequences, least.sequences))
        micro = (batch for _, batch in lessons.micro_batches(self.settings.micro_tokens))
        if plain:
            micro = ({name: b[name] for name in ("ids", "mask", "weight", "positions") if name in b} for b in micro)
        report = self.learner.step(micro, goal, size, lr)
        self.step += 1
        self.samples += len(lessons)
        return report

    def _ways(self, device: str) -> list[LanguageTraining]:
        """What the settings leave open: the usual first, all if there is a choice, else none."""
        mine, s = self.training, self.settings
        several = s.threads == "auto" and device == "cpu"
        threads = {mine.threads, max(1, mine.threads // 2), 1} if several else {mine.threads}
        bf16 = {mine.bf16, has_bfloat16(device)} if s.bf16 == "auto" else {mine.bf16}
        ways = [LanguageTraining(b, t) for b in bf16 for t in threads]
        return sorted(ways, key=lambda way: (way != mine, way.bf16, -way.threads)) if len(ways) > 1 else []

    def _choose(self, lessons: Lessons) -> None:
        """The fastest way for lines like these."""
        ways, self._open = self._open, []
        some = lessons.take(np.arange(min(len(lessons), max(1, _TRIED_TOKENS // int(lessons.lengths().max())))))
        _, batch = next(iter(some.micro_batches(self.settings.micro_tokens)))
        self.training = fastest(ways, lambda way: self.learner.time(way, batch), batch["ids"].numel())
        self.learner.use(self.training)

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self, lessons: Lessons) -> dict[str, list[Array]]:
        """`logprobs` and, with a value head, `values` by the policy as it is: `[T]` float32 a line."""
        found: dict[str, list[Array]] = {}
        for places, batch in lessons.micro_batches(2 * self.settings.micro_tokens):
            for name, rows in self.learner.look(batch, self.sampling).items():
                lines = found.setdefault(name, [np.zeros(0, np.float32)] * len(lessons))
                for place, row in zip(places.tolist(), rows, strict=True):
                    lines[place] = row[: len(lessons.ids[place])]
        return found

    def begin_reference(self) -> None:
        """Divergence is measured from the policy as it is; the optimiser of reinforcement begins anew."""
        self._reference = self.learner.policy.to_arrays()
        if ALGORITHMS[self.settings.algorithm].follows == "reinforce":
            self.learner.forget_moments()

    def _by_reference(self, lessons: Lessons) -> list[Array]:
        assert self._reference is not None
        policy = self.learner.policy
        now = policy.to_arrays()
        policy.from_arrays(self._reference)
        try:
            return self.look(lessons)["logprobs"]
        finally:
            policy.from_arrays(now)

    def _drift(self, lessons: Lessons, rng: np.random.Generator) -> float:
        """KL(policy || reference) in nats a token, by samples, on some lines."""
        some = lessons.take(np.sort(rng.permutation(len(lessons))[:_KL_LINES]))
        now, then = self.look(some)["logprobs"], self._by_reference(some)
        apart = np.concatenate([(b - a)[m] for a, b, m in zip(now, then, some.tokens["mask"], strict=True)])
        apart = np.clip(apart, -20.0, 20.0)
        return float((np.expm1(apart) - apart).mean()) if len(apart) else 0.0

    # -- keeping ------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Array]:
        """What to generate with: name -> float32 array."""
        return self.learner.policy.to_arrays()

    def save(self, uri: str, more: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """Writes policy, optimiser, reference and counters as one safetensors object.

        more: JSON kept beside. state: of the run, kept with it.
        """
        tensors = self.learner.state()
        tensors |= {f"reference/{name}": value for name, value in (self._reference or {}).items()}
        meta = {"kind": "language", "learner_schema": SCHEMA, "step": self.step, "samples": self.samples}
        meta |= {"baselines": self.baselines.state(), "more": more, "state": state}
        weights.save(uri, tensors, meta)

    def restore(self, uri: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Reads what `save` wrote; returns `more` and the run's state.

        Raises `Damaged` for something else, `UserError` for a newer schema.
        """
        tensors, meta = weights.load(uri)
        if meta.get("kind") != "language":
            raise Damaged(uri, f"it is not a language model's checkpoint but {meta.get('kind', 'something else')!r}")
        if meta["learner_schema"] > SCHEMA:
            raise UserError(f"{uri} is a checkpoint of a newer schema than {SCHEMA}; upgrade the package")
        self.learner.load_state(tensors)
        reference = {n.removeprefix("reference/"): v for n, v in tensors.items() if n.startswith("reference/")}
        self._reference = reference or None
        self.step, self.samples = int(meta["step"]), int(meta["samples"])
        self.baselines = SeatBaselines.from_state(meta["baselines"])
        return dict(meta["more"]), meta.get("state")
