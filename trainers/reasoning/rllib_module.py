"""RLlib's side of learning a language model: an RLModule that is our policy, a Learner that adds micro-batches up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from selfplay.nets.language import LanguagePolicy, fresh
from selfplay.nets.language.config import PolicySpec
from selfplay.rollout.sampling import Sampling
from trainers.reasoning import training_step
from trainers.reasoning.algorithms.ppo import value_loss
from trainers.reasoning.algorithms.sft import sft_loss
from trainers.reasoning.arithmetic import LanguageTraining
from trainers.reasoning.policy_loss import PolicyLoss, Report, Size, merged, policy_loss

MODULE = "default_policy"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Objective:
    """What a step minimises. kind: "sft" or "policy" (with the value loss where `value_coef` is above 0)."""

    kind: str
    loss: PolicyLoss = field(default_factory=PolicyLoss)
    value_coef: float = 0.0
    value_clip: float | None = None
    sampling: Sampling = field(default_factory=Sampling)


class LanguageModule(TorchRLModule):
    """A policy as RLlib sees it. model_config: `policy` (JSON of its spec), `seed`, `bf16` (autocast)."""

    def setup(self) -> None:
        spec = PolicySpec.from_json(self.model_config["policy"])
        if not spec.lora_rank:  # steps are smaller than bfloat16 can add to a weight; adapters are float32 anyway
            spec = replace(spec, dtype="float32")
        self.policy = fresh(spec, self.model_config["seed"])
        self.sampling = Sampling()

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """As `training_step.forward`."""
        return training_step.forward(self.policy, batch, self.sampling, self.model_config["bf16"])


class LanguageLearner(TorchLearner):
    """One learner of a language model."""

    def build(self) -> None:
        super().build()
        settings = self.config.learner_config_dict
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self._clip = settings["grad_clip"]
        self.objective = Objective("sft")
        self.size = Size(1.0, 1.0)
        self._report: Report = {}

    @property
    def policy(self) -> LanguagePolicy:
        """The policy being trained."""
        policy: LanguagePolicy = self.module[MODULE].unwrapped().policy
        return policy

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """As `training_step.adamw`."""
        params = [p for p in self.get_parameters(self.module[module_id]) if p.requires_grad]
        optimizer = training_step.adamw(params, self.config.learner_config_dict["weight_decay"])
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """The objective's loss on a micro-batch, divided by the size of the whole batch."""
        new, mask, goal = fwd_out["logprobs"], batch["mask"], self.objective
        weight = batch.get("weight")
        average, constant = goal.loss.average, goal.loss.constant
        if goal.kind == "sft":
            loss, report = sft_loss(new, mask, weight, average, constant, self.size)
        else:
            proximal = batch["proximal"] if "proximal" in batch else new.detach()
            advantages = batch["advantages"] if "advantages" in batch else batch["advantage"]
            reference = batch.get("reference")
            loss, report = policy_loss(
                new, proximal, batch["behaviour"], advantages, mask, goal.loss, reference, weight, self.size
            )
            if goal.value_coef:
                values, about = value_loss(
                    fwd_out["values"], batch["values"], batch["returns"], mask, goal.value_clip, weight,
                    average, constant, self.size,
                )  # fmt: skip
                loss, report = loss + goal.value_coef * values, {**report, **about}
        trained = mask if weight is None else mask & (weight > 0)[:, None]
        share = trained.sum() / max(self.size.tokens, 1.0)
        self._report = {**report, "entropy": fwd_out["entropy"].detach() * share}
        return loss

    def postprocess_gradients_for_module(
        self, *, module_id: str, config: AlgorithmConfig | None = None, module_gradients_dict: dict[Any, Tensor]
    ) -> dict[Any, Tensor]:
        """Clips the gradient by its global norm."""
        parameters = [p for p in self.policy.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._clip)
        self._report["grad_norm"] = norm.detach()
        return module_gradients_dict

    def step(
        self, batches: Iterator[dict[str, Tensor]], objective: Objective, size: Size, lr: float
    ) -> dict[str, float]:
        """One optimiser step on the micro-batches of a batch of `size`: their gradients add up.

        RLlib's own `update` takes the batch as one; forward, loss, clipping and optimiser are its own here, too.
        """
        self.objective, self.size = objective, size
        self.module[MODULE].unwrapped().sampling = objective.sampling
        optimizer = self.get_optimizer(MODULE)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        reports = []
        for batch in batches:
            there = {MODULE: {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}}
            fwd_out = self.module.forward_train(there)
            losses = self.compute_losses(fwd_out=fwd_out, batch=there)
            losses[MODULE].backward()
            reports.append(self._report)
        if not reports:
            return {}
        total = merged(reports)
        gradients = {ref: p.grad for ref, p in self._params.items() if p.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        total["grad_norm"] = self._report["grad_norm"]
        report = {name: float(value) for name, value in total.items()}
        if not np.isfinite(list(report.values())).all():
            raise FloatingPointError(f"training diverged: {report}; restore the last checkpoint")
        return report

    def use(self, way: LanguageTraining) -> None:
        """From now on passes are computed so."""
        torch.set_num_threads(way.threads)
        self.module[MODULE].unwrapped().model_config["bf16"] = way.bf16

    def time(self, way: LanguageTraining, batch: dict[str, Tensor]) -> float:
        """Seconds of a forward and backward pass of this micro-batch; nothing is learned."""
        self.use(way)
        there = {name: batch[name].to(self.device) for name in ("ids", "mask")}
        _wait(self.device)
        began = time.perf_counter()
        out = self.module[MODULE].unwrapped()._forward(there)
        sum(value.sum() for value in out.values()).backward()
        _wait(self.device)
        seconds = time.perf_counter() - began
        self.get_optimizer(MODULE).zero_grad(set_to_none=True)
        return seconds

    @torch.no_grad()
    def look(self, batch: dict[str, Tensor], sampling: Sampling) -> dict[str, Array]:
        """What the policy says now of a batch: `logprobs` and, with a value head, `values`, `[B, T]` float32."""
        module = self.module[MODULE].unwrapped()
        module.sampling = sampling
        out = module._forward({name: batch[name].to(self.device) for name in ("ids", "mask")})
        return {name: out[name].float().cpu().numpy() for name in ("logprobs", "values") if name in out}

    def forget_moments(self) -> None:
        """The optimiser begins anew: moments of another objective's gradients would scale its first steps wrongly."""
        self.get_optimizer(MODULE).state.clear()

    def state(self) -> dict[str, Array]:
        """Weights and the optimiser's moments and step counts: name -> float32 array."""
        tensors = {f"net/{name}": value for name, value in self.policy.to_arrays().items()}
        known = self.get_optimizer(MODULE).state
        for name, parameter in self.policy.trained():
            for key, value in known.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value).float().cpu().numpy().copy()
        return tensors

    def load_state(self, tensors: dict[str, Array]) -> None:
        """The inverse of `state`."""
        self.policy.from_arrays(_below("net/", tensors))
        optimizer = self.get_optimizer(MODULE)
        for name, parameter in self.policy.trained():
            moments = {key: tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["exp_avg"] is None:
                continue
            optimizer.state[parameter] = {
                "step": torch.tensor(float(np.asarray(moments["step"]))),
                "exp_avg": torch.tensor(moments["exp_avg"], dtype=parameter.dtype, device=parameter.device),
                "exp_avg_sq": torch.tensor(moments["exp_avg_sq"], dtype=parameter.dtype, device=parameter.device),
            }


def _wait(device: torch.device | str) -> None:
    """For what a GPU still computes."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _below(prefix: str, tensors: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

