"""The learner as a Ray actor: takes archived games, trains at the pace that their number allows, hands out weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.episode.training import TargetSettings, rows_from
from selfplay.io import run_files, storage
from selfplay.nets import weights
from selfplay.nets.config import NetConfig
from selfplay.store import Receipt
from selfplay.store.table import counts
from selfplay.store.table.changes import run_at
from trainers.alphazero.arithmetic import Training
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.provenance import REFILL_EPISODES, newest_episodes, sampler_of
from trainers.run.committed_blocks import episodes_of
from trainers.run.restore import Restored, restore
from trainers.run.throughput import Spent, timed
from trainers.run.weights_lineage import Derivation, Issue


@dataclass(frozen=True)
class StudentJob:
    """Everything the learner is told once.

    samples_per_position: training samples owed for each archived position. first_rows: positions before training.
    """

    env: registry.Portable
    net: str
    learner: LearnerSettings
    targets: TargetSettings
    samples_per_position: float
    first_rows: int
    run_uri: str
    corpus: str
    run_id: str


@dataclass(frozen=True)
class Progress:
    """Where the learner stands.

    positions: rows ever taken in. samples, step: trained since the run began. debt: samples still owed.
    losses: means over the newest call that trained, empty before.
    training: the arithmetic in use, and what decided it. spent: by the newest call.
    """

    positions: int
    samples: int
    step: int
    debt: float
    window_rows: int
    window_capacity: int
    losses: dict[str, float]
    training: Training
    spent: Spent = Spent()


class Student:
    """Owns the net, the optimiser and the replay window of a run."""

    def __init__(self, job: StudentJob) -> None:
        storage.refuse_unseen(job.run_uri)
        from trainers.alphazero.learner import (
            AlphaZeroLearner,  # RLlib: not in the driver, which imports this module, too
        )

        self._job = job
        self._game = load(registry.unpack(job.env))
        symmetries = self._game.encoder.symmetries()
        self._learner = AlphaZeroLearner(NetConfig.from_json(job.net), job.learner, symmetries)
        self._paid = 0.0
        self._losses: dict[str, float] = {}
        self._since = Derivation(0, weights.digest(self._learner.weights()))

    def restore(self, checkpoints: Sequence[str]) -> Restored:
        """Goes on from the first of the run's checkpoints that is whole; from none: with a new net."""

        def load(uri: str) -> dict[str, Any] | None:
            more, state = self._learner.restore(uri)
            self._since = Derivation.from_checkpoint(more, state)
            return state

        return restore(self._job.run_uri, checkpoints, load)

    @timed
    def resume(self, table_version: int) -> Progress:
        """Refills the window with the run's newest archived games.

        table_version: of the corpus; whatever was committed later comes as lessons. The corpus also says how many
        positions there were, so what was archived after the checkpoint is still learned from.
        """
        learner, job = self._learner, self._job
        corpus, mine = run_at(job.corpus, job.run_id, table_version)
        mine &= pc.field("trainable")
        learner.recount(counts.archived_at(job.corpus, job.run_id, table_version).training_rows)
        self._since.events.append({"what": "refill", "table_version": table_version, "first_step": learner.step})
        newest = newest_episodes(corpus, mine, learner.capacity, learner.total)
        for first in range(0, newest.num_rows, REFILL_EPISODES):
            self._add(newest.slice(first, REFILL_EPISODES), new=False)
        # Where settings have changed, or a crash undid much, the players must not wait for all of it.
        owed = learner.total * job.samples_per_position
        self._paid = min(owed, max(float(learner.samples), owed - job.first_rows * job.samples_per_position))
        return self.progress()

    @timed
    def take(self, lessons: list[tuple[Receipt, Any]]) -> Progress:
        """Takes archived games in: pairs of an archive receipt and a list with the ObjectRef of the episodes."""
        for receipt, handed in lessons:
            batch = episodes_of(receipt, handed, self._job.corpus)
            self._add(batch, new=True)
            if batch.num_rows:
                numbers = batch.column("number")
                place = {"slot": receipt.slot, "epoch": receipt.epoch}
                span = {"first": numbers[0].as_py(), "last": numbers[-1].as_py()}
                self._since.events.append({"what": "add", **place, **span})
        return self.progress()

    def _add(self, episodes: pa.RecordBatch | pa.Table, new: bool) -> None:
        rows = rows_from(self._game, episodes, self._job.targets)
        if len(rows):
            self._learner.add(rows, new=new)

    @timed
    def train(self, samples: int, lr: float, threads: int | None = None) -> Progress:
        """Trains on at most `samples` of the samples owed, in whole steps; nothing before the window has begun.

        threads: of torch from now on; None: as before.
        """
        batch = self._job.learner.batch
        steps = int(min(self._debt(), samples) // batch)
        if steps > 0 and self._learner.total >= self._job.first_rows:
            first = self._learner.step
            self._losses = self._learner.train(steps, lr, threads)
            self._since.events.append({"what": "train", "first_step": first, "last_step": first + steps - 1})
            self._paid += steps * batch
        return self.progress()

    def _debt(self) -> float:
        return self._learner.total * self._job.samples_per_position - self._paid

    def progress(self) -> Progress:
        """The present state."""
        learner = self._learner
        return Progress(
            positions=learner.total,
            samples=learner.samples,
            step=learner.step,
            debt=self._debt(),
            window_rows=learner.window_rows(),
            window_capacity=learner.capacity,
            losses=self._losses,
            training=learner.training,
        )

    @ray.method(num_returns=2)
    def publish(self, version: int) -> tuple[Issue, dict[str, np.ndarray[Any, Any]]]:
        """Writes the weights under a version, or the next free one; returns what made them, and them."""
        tensors = self._learner.weights()
        learner = self._learner
        about = {"step": learner.step, "samples": learner.samples, "training": learner.training.name}
        meta = {**about, **self._since.about()}
        version = weights.save_version(self._job.run_uri, version, tensors, meta)
        return self._since.published(version, weights.digest(tensors), sampler_of(self._job.learner)), tensors

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Writes everything that `restore` needs to `checkpoints/NAME` of the run. state: of the run, kept with it."""
        uri = run_files.checkpoint_uri(self._job.run_uri, name)
        self._learner.save(uri, state, self._since.kept())
