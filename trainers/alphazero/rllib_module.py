"""RLlib's side of the learner: an RLModule that is our net, and a Learner that samples from its own window."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from selfplay.nets import NetConfig, PolicyValueNet, to_arrays
from trainers.alphazero import training_step
from trainers.alphazero.loss import losses
from trainers.alphazero.optimizer import Optimizer
from trainers.alphazero.replay_window import ReplayWindow, WindowSettings, step_rng

#: The one module of the MultiRLModule.
MODULE = "default_policy"


class PolicyValueModule(TorchRLModule):
    """Our net as RLlib sees it.

    model_config: `net` (JSON of its NetConfig), `seed` of its first weights, `bf16` and `layout` of its passes.
    """

    def setup(self) -> None:
        about = self.model_config
        self.net = training_step.trainable(NetConfig.from_json(about["net"]), about["seed"], about["layout"])

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        about = self.model_config
        seen = batch["observations"]
        policy, value = training_step.forward(self.net, seen, about["bf16"], about["layout"])
        return {"policy_logits": policy, "value_logits": value}


class PolicyValueLearner(TorchLearner):
    """One learner, alone or one of N processes, with its shard of the replay window.

    rank: its number among the N. window: its shard; capacity and counts are 1/N of the whole window's.
    """

    def build(self) -> None:
        super().build()
        options = self.config.learner_config_dict
        settings = self.settings = options["settings"]
        shards = max(1, settings["learners"])
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self.rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        net = NetConfig.from_json(options["net"])
        shard = WindowSettings(**settings["window"]).divided(shards)
        self.window = ReplayWindow(net.input_shape, net.num_actions, shard, options["symmetries"])
        self._batch = settings["batch"] // shards
        self._average = {k: v.clone() for k, v in self.net.state_dict().items()} if settings["ema"] else {}
        self._report: dict[str, Tensor] = {}

    @property
    def net(self) -> PolicyValueNet:
        """The net being trained."""
        net: PolicyValueNet = self.module[MODULE].unwrapped().net
        return net

    @property
    def optimizer(self) -> Optimizer:
        """Its optimiser."""
        optimizer: Optimizer = self.get_optimizer(MODULE)
        return optimizer

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """One `Optimizer` for all of the net."""
        settings = self.config.learner_config_dict["settings"]
        module = self.module[module_id]
        params = [p for p in self.get_parameters(module) if p.requires_grad]
        optimizer = Optimizer(module.unwrapped().net, settings["optimizer"], settings["lr"], settings["weight_decay"])
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        loss, self._report = losses(fwd_out["policy_logits"], fwd_out["value_logits"], batch)
        return loss

    def postprocess_gradients_for_module(
        self, *, module_id: str, config: AlgorithmConfig | None = None, module_gradients_dict: dict[Any, Tensor]
    ) -> dict[Any, Tensor]:
        """Clips the gradient, already averaged over the learners, by its global norm."""
        self._report["grad_norm"] = training_step.clip(self.net, self.settings["grad_clip"])
        return module_gradients_dict

    def train(self, first: int, steps: int, lr: float, threads: int | None) -> dict[str, float]:
        """Steps `first` to `first + steps` of the run; each depends on (seed, step, rank) and the window alone.

        threads: of torch from now on; None: as before.
        RLlib's own `update` is left out: it takes one batch a call and reduces its metrics each time; `_update` is
        the step inside it (forward, losses, gradients, clipping, optimiser).
        """
        if threads is not None:
            torch.set_num_threads(threads)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums: dict[str, Tensor] = {}
        sampling = 0.0
        for step in range(first, first + steps):
            began = time.perf_counter()
            rng = step_rng(self.settings["seed"], step, self.rank)
            batch = {k: torch.from_numpy(v) for k, v in self.window.sample(self._batch, rng).items()}
            sampling += time.perf_counter() - began
            batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            self._update({MODULE: batch})
            for name, value in self._report.items():
                sums[name] = sums[name] + value if name in sums else value
            training_step.average(self._average, self.net, step, self.settings["ema"])
        training_step.check_finite(self.net)
        return {**{name: float(total) / steps for name, total in sums.items()}, "sample_seconds": sampling}

    def published(self) -> dict[str, np.ndarray]:
        """The weights to play with; averaged ones where `ema` is set."""
        if not self._average:
            return to_arrays(self.net)
        return {name: value.float().cpu().numpy().copy() for name, value in self._average.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Net, the optimiser's moments and step counts, averaged weights: name -> float32 array."""
        return training_step.state_of(self.net, self.optimizer, self._average)

    def load_state(self, tensors: dict[str, np.ndarray], total: int) -> None:
        """The inverse of `state`; `total` positions were seen by all shards together."""
        training_step.load_state(self.net, self.optimizer, self._average, tensors)
        self.window.total = total // max(1, self.settings["learners"])
