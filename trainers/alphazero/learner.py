"""The learner: RLlib Learners around our net, each with its shard of the replay window.

One learner works in this process; with N > 1 each is a process of its own (gloo or NCCL), and an update carries
sampling instructions, not batches: every learner samples its share from its own shard, gradients are averaged, and
their average equals the gradient of one learner on the union. Nothing here plays or archives; see the trainer's loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from selfplay.contract import Symmetry
from selfplay.episode.rows import Rows, take
from selfplay.errors import Damaged, UserError
from selfplay.nets import NetConfig, weights
from selfplay.nets.inference import pick_device
from trainers.alphazero.arithmetic import measured, usual
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.rllib_module import MODULE, PolicyValueLearner, PolicyValueModule

#: Rises when `save` writes something that older code would misread.
SCHEMA = 1


class AlphaZeroLearner:
    """Holds the net, the optimiser and the replay window. A plain class; `ray.remote(AlphaZeroLearner)` is an actor.

    step: steps taken since the run began. samples: rows trained on since then. training: the arithmetic in use.
    """

    def __init__(
        self, net: NetConfig, settings: LearnerSettings | None = None, symmetries: Sequence[Symmetry] = ()
    ) -> None:
        """Builds the learners. `symmetries` of the game augment what is sampled.

        Raises `UserError` for a device that is not there or a batch that cannot be divided.
        """
        settings = settings or LearnerSettings()
        self.shards = max(1, settings.learners)
        if settings.batch % self.shards:
            raise UserError(f"batch {settings.batch} is not a multiple of {self.shards} learners")
        device = pick_device(settings.device)
        self.net = net
        if settings.threads and self.shards == 1:
            torch.set_num_threads(settings.threads)
        self.training = measured(net, settings, device) if settings.measure else usual(settings, device)
        how = self.training
        self.settings = replace(settings, device=device, bf16=how.bf16, layout=how.layout)
        self.step = self.samples = self.total = self._rows = 0
        self._symmetries = tuple(symmetries)
        self._group: LearnerGroup | None = self._build()

    def _build(self) -> LearnerGroup:
        s = self.settings
        options = {"net": self.net.to_json(), "settings": asdict(s), "symmetries": self._symmetries}
        config = AlgorithmConfig().framework("torch")
        config.training(learner_class=PolicyValueLearner, learner_config_dict=options)
        config.learners(
            num_learners=s.learners if s.learners > 1 else 0, num_gpus_per_learner=1 if s.device == "cuda" else 0
        )
        spec = RLModuleSpec(
            module_class=PolicyValueModule,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, self.net.input_shape),
            action_space=gymnasium.spaces.Discrete(self.net.num_actions),
            model_config={
                "net": self.net.to_json(), "seed": s.seed, "bf16": s.bf16, "layout": s.layout,
            },
        )
        return LearnerGroup(config=config, module_spec=MultiRLModuleSpec(rl_module_specs={MODULE: spec}))

    def _each(self, function: Callable[..., Any], **arguments: Any) -> list[Any]:
        """`function(learner, **arguments)` in every learner. Raises where one failed or is gone: RLlib would not."""
        if self._group is None:
            raise RuntimeError("this learner was shut down")
        results = list(self._group.foreach_learner(function, **arguments))
        for result in results:
            if not result.ok:
                raise RuntimeError(f"a learner failed: {result.get()}") from result.get()
        if len(results) != self.shards:
            raise RuntimeError(f"{self.shards - len(results)} of {self.shards} learners are gone")
        return [result.get() for result in results]

    def add(self, rows: Rows, new: bool = True) -> None:
        """Puts rows into the window. `new` False: rows put back after `restore`, already counted in `total`."""
        self.total += len(rows) if new else 0
        if self.shards == 1:
            self._each(_add, shards=[rows], new=new)
        else:  # row i belongs to shard (first row's number + i) mod N, so that shards stay equal
            order = (np.arange(len(rows)) + self._rows) % self.shards
            shards = [ray.put(take(rows, np.flatnonzero(order == i))) for i in range(self.shards)]
            self._each(_add, shards=shards, new=new)
        self._rows += len(rows)

    @property
    def capacity(self) -> int:
        """Positions that the window keeps now: how many to put back after `restore`."""
        return self.settings.window.capacity(self.total)

    def recount(self, total: int) -> None:
        """Sets `total`, after `restore`, to what was archived up to now: more than the checkpoint knew of."""
        self.total = total
        self._each(_recount, total=total // self.shards)

    def window_rows(self) -> int:
        """Positions in the window now."""
        return sum(self._each(_window_rows))

    @property
    def local(self) -> PolicyValueLearner:
        """The one learner in this process; for measurements and tests. Raises where learners are processes."""
        if self._group is None or not self._group.is_local:
            raise RuntimeError("the learners of this group are processes of their own")
        learner: PolicyValueLearner = self._group._learner
        return learner

    def train(self, steps: int, lr: float | None = None, threads: int | None = None) -> dict[str, float]:
        """Takes `steps` steps at learning rate `lr` and returns the means over them.

        threads: of torch from now on in each learner; None: as before.
        Returned: what `losses` reports, `grad_norm` (before clipping), `lr`, `step`, `samples` (both since the run
        began), `seconds` and `sample_seconds` (of that, in the window). Raises `FloatingPointError` when the loss or
        the weights are no longer finite: restore the last checkpoint then.
        """
        began = time.perf_counter()
        lr = self.settings.lr if lr is None else lr
        reports = self._each(_train, first=self.step, steps=steps, lr=lr, threads=threads)
        self.step += steps
        self.samples += steps * self.settings.batch
        report = {name: float(np.mean([r[name] for r in reports])) for name in reports[0]}
        report |= {"lr": lr, "step": self.step, "samples": self.samples, "seconds": time.perf_counter() - began}
        if not all(math.isfinite(value) for value in report.values()):
            raise FloatingPointError(f"training diverged at step {self.step}: {report}")
        return report

    def weights(self) -> dict[str, np.ndarray]:
        """What to play with: name -> float32 array, averaged over steps if `ema` is set. For `Evaluator.load`."""
        tensors: dict[str, np.ndarray] = self._each(_published)[0]
        return tensors

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that `load_state` needs, as arrays and JSON; the window's rows are not part of it."""
        meta = {
            "kind": "learner",
            "learner_schema": SCHEMA,
            "net": self.net.to_json(),
            "step": self.step,
            "samples": self.samples,
            "total": self.total,
        }
        return self._each(_state)[0], meta

    def load_state(self, tensors: dict[str, np.ndarray], meta: dict[str, Any], source: str) -> None:
        """The inverse of `state`. `source` names the place in errors. Raises `UserError` for another net's state."""
        if meta.get("kind") != "learner":
            raise Damaged(source, f"it is not a learner's checkpoint but {meta.get('kind', 'something else')!r}")
        if meta["learner_schema"] > SCHEMA:
            raise UserError(f"{source} is a checkpoint of a newer schema than {SCHEMA}; upgrade the package")
        if NetConfig.from_json(meta["net"]) != self.net:
            raise UserError(f"{source} holds a net of another shape than this run's; use the run's own settings")
        self.step, self.samples, self.total = int(meta["step"]), int(meta["samples"]), int(meta["total"])
        self._each(_load_state, tensors=tensors if self.shards == 1 else ray.put(tensors), total=self.total)

    def save(self, uri: str, state: dict[str, Any] | None = None, more: dict[str, Any] | None = None) -> None:
        """Writes net, optimiser and counters as one safetensors object (no pickle).

        state: of the run, kept with it. more: JSON kept beside.
        """
        tensors, meta = self.state()
        weights.save(uri, tensors, {**meta, "more": more or {}} | ({} if state is None else {"state": state}))

    def restore(self, uri: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Reads what `save` wrote; training goes on exactly as it would have, given the same window.

        The window is not saved: put its newest `capacity` rows back with `add(rows, new=False)`.
        Returns `more`, and the state of the run that was kept with it. Raises `Damaged` for what is not a whole
        checkpoint.
        """
        tensors, meta = weights.load(uri)
        self.load_state(tensors, meta, uri)
        return dict(meta.get("more", {})), meta.get("state")

    def shutdown(self) -> None:
        """Ends the learner processes."""
        if self._group is not None:
            self._group.shutdown()
            self._group = None


def _add(learner: PolicyValueLearner, shards: list[Any], new: bool) -> None:
    rows = shards[learner.rank]
    learner.window.add(ray.get(rows) if isinstance(rows, ray.ObjectRef) else rows, new)


def _recount(learner: PolicyValueLearner, total: int) -> None:
    learner.window.total = total


def _window_rows(learner: PolicyValueLearner) -> int:
    return len(learner.window)


def _train(learner: PolicyValueLearner, first: int, steps: int, lr: float, threads: int | None) -> dict[str, float]:
    return learner.train(first, steps, lr, threads)


def _published(learner: PolicyValueLearner) -> dict[str, np.ndarray]:
    return learner.published()


def _state(learner: PolicyValueLearner) -> dict[str, np.ndarray]:
    return learner.state() if learner.rank == 0 else {}


def _load_state(learner: PolicyValueLearner, tensors: Any, total: int) -> None:
    learner.load_state(ray.get(tensors) if isinstance(tensors, ray.ObjectRef) else tensors, total)
