"""The learner of a language model as a Ray actor: takes archived episodes, learns from them, hands out weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from selfplay.environments.task import HELD_OUT_OF, side_of
from selfplay.errors import UserError
from selfplay.io import run_files, storage
from selfplay.nets import weights
from selfplay.nets.language.config import PolicySpec
from selfplay.nets.language.policy import save
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.sampling import Sampling
from selfplay.store import Receipt
from selfplay.store import open as open_corpus
from selfplay.store.corpus.newest import since
from selfplay.store.table.changes import run_at
from selfplay.store.table.snapshot import Snapshot
from trainers.reasoning.algorithms.expert_iteration import Sample, keep
from trainers.reasoning.arithmetic import LanguageTraining
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.token_batch import COLUMNS, Array, Lessons, lessons_from
from trainers.run.committed_blocks import episodes_of
from trainers.run.restore import Restored, restore
from trainers.run.throughput import Spent, timed
from trainers.run.weights_lineage import Derivation, Issue

_WRITER = ("slot", "epoch", "number")
#: Clocks of machines differ by less than this, seconds.
_SKEW_S = 4500.0
#: So far back the newest rounds are sought first, seconds.
_BACK_S = 600.0
#: (receipt, a list with the ObjectRef of its episodes)
Given = tuple[Receipt, list[Any]]


@dataclass(frozen=True)
class TutorJob:
    """Everything the learner is told once. config: JSON. seats, held_out_of: of the task."""

    policy: str
    config: str
    seats: int
    threads: int
    run_uri: str
    corpus: str
    run_id: str
    held_out_of: int = HELD_OUT_OF


@dataclass(frozen=True)
class Recalled:
    """Groups of episodes that the archive holds at a version of its table. since: none is older, seconds since 1970."""

    table_version: int
    groups: list[str]
    since: float


@dataclass(frozen=True)
class Lesson:
    """What a call of the learner did. report: means over its steps. step: optimiser steps since the run began.

    training: the arithmetic in use, and what decided it. spent: by this call.
    """

    step: int
    samples: int
    report: dict[str, float]
    training: LanguageTraining
    spent: Spent = Spent()


class Tutor:
    """Owns policy and optimiser of a run."""

    def __init__(self, job: TutorJob) -> None:
        storage.refuse_unseen(job.run_uri)
        from trainers.reasoning.learner import ReasoningLearner  # RLlib: not in the driver, which imports this module

        config = ReasoningConfig.model_validate_json(job.config)
        self._job, self._config = job, config
        self._learner = ReasoningLearner(
            PolicySpec.from_json(job.policy),
            config.learner,
            sampling_of(config),
            job.seats,
            config.run.seed,
            job.threads,
            measure=True,
        )
        self._base = Lessons()
        self._own = Lessons()
        self._since = Derivation(0, weights.digest(self._learner.weights()))
        self._first_rl_step = 0

    def restore(self, checkpoints: Sequence[str]) -> Restored:
        """Goes on from the first of the run's checkpoints that is whole; from none: with a new policy."""

        def load(uri: str) -> dict[str, Any] | None:
            more, state = self._learner.restore(uri)
            self._first_rl_step = int(more["first_rl_step"])
            self._since = Derivation.from_checkpoint(more, state)
            return state

        return restore(self._job.run_uri, checkpoints, load)

    def standing(self) -> Lesson:
        """Where the learner stands, without doing anything."""
        return self._lesson({})

    def take_base(self, given: Sequence[Given]) -> int:
        """Takes the episodes of a solver or a teacher in, to imitate; returns how many there are now."""
        self._base = self._base.plus(self._imitable(self._read(given, None)))
        return len(self._base)

    def _imitable(self, lessons: Lessons) -> Lessons:
        """What was accepted, as far as the policy's context holds it; of no problem that is only measured on."""
        fits = lessons.lengths() <= PolicySpec.from_json(self._job.policy).context
        sides = [side_of(digest, self._job.held_out_of) for digest in lessons.names["problem"]]
        training = np.array([side == "training" for side in sides], bool)
        return lessons.take(np.flatnonzero(lessons.numbers["accepted"] & fits & training))

    @timed
    def warm(self, first: int, steps: int) -> Lesson:
        """Steps `first` to `first + steps` of the warm start; each depends on (seed, step) and the base alone."""
        w, n = self._config.warm, len(self._base)
        reports = []
        began = self._learner.step
        for step in range(first, first + steps):
            rng = np.random.default_rng([self._config.run.seed, 1, step])
            late = step / max(1, w.steps)
            rise = min(1.0, (step + 1) / max(1.0, min(100.0, 0.05 * w.steps)))
            lr = w.lr * rise * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, late))))
            index = rng.integers(0, n, min(w.batch, n)) if n > w.batch else np.arange(n)
            reports.append(self._learner.supervise(self._base.take(index), lr))
        self._trained(began)
        return self._lesson(_means(reports))

    def begin_learning(self) -> None:
        """The warm start is over: divergence is measured from here, learning rates rise again."""
        self._learner.begin_reference()
        self._first_rl_step = self._learner.step

    @timed
    def reinforce(self, given: Sequence[Given], round_number: int, recalled: Recalled | None = None) -> Lesson:
        """One round of reinforcement learning on the samples of a round, all of them archived.

        recalled: groups of the round that a former driver, or a former learner, had archived.
        """
        lessons, began = self._read(given, recalled), self._learner.step
        c = self._config.learner
        rise = min(1.0, (self._learner.step - self._first_rl_step + 1) / max(1, c.warmup_steps))
        report = self._learner.reinforce(lessons, round_number, c.lr * rise)
        self._trained(began)
        return self._lesson(report)

    @timed
    def imitate(
        self, given: Sequence[Given], round_number: int, steps: int, recalled: Recalled | None = None
    ) -> Lesson:
        """One round of expert iteration: what was verified is kept, then steps on it and on the base."""
        e, c = self._config.expert, self._config.learner
        lessons, began = self._read(given, recalled), self._learner.step
        rng = np.random.default_rng([self._config.run.seed, 2, round_number])
        self.keep(lessons, rng)
        reports = []
        for _ in range(steps):
            size = self._config.warm.batch
            from_base = size if not len(self._own) else round(size * e.base_share)
            parts = [self._base.take(rng.integers(0, len(self._base), from_base))] if from_base else []
            if from_base < size:
                weight = self._own.numbers["weight"]
                parts.append(self._own.take(rng.choice(len(self._own), size - from_base, p=weight / weight.sum())))
            batch = _plain(parts[0])
            for part in parts[1:]:
                batch = batch.plus(_plain(part))
            reports.append(self._learner.supervise(batch, c.lr))
        self._trained(began)
        return self._lesson({**_means(reports), "kept": float(len(self._own))})

    def keep(self, lessons: Lessons, rng: np.random.Generator) -> None:
        """Adds the verified samples of a round to what is imitated: once each, few a problem, the hard more often."""
        e = self._config.expert
        solved = np.where(np.isnan(lessons.numbers["reward"]), np.nan, lessons.numbers["accepted"])
        samples = [
            Sample(problem, tuple(ids.tolist()), reward, level)
            for problem, ids, reward, level in zip(
                lessons.names["problem"],
                lessons.ids,
                solved.tolist(),
                lessons.numbers["level"].tolist(),
                strict=True,
            )
        ]
        place = {(sample.problem, sample.tokens): i for i, sample in enumerate(samples)}
        kept = keep(samples, rng, e.per_problem)
        if kept:
            new = lessons.take(np.array([place[one.sample.problem, one.sample.tokens] for one in kept]))
            new.numbers["weight"] = np.array([one.weight for one in kept])
            self._own = self._own.plus(new)
            if len(self._own) > e.window:
                self._own = self._own.take(np.arange(len(self._own) - e.window, len(self._own)))

    def recall_base(self, table_version: int, until: float | None = None) -> int:
        """After a restart: the solver's or teacher's episodes, from the archive; returns how many there are.

        until: when the last of them was archived, seconds since 1970; None: not known, all episodes are looked at.
        """
        where = pc.field("origin").isin(["solver", "teacher"])
        if until is not None:
            where &= pc.field("started_at") <= pa.scalar(int((until + _SKEW_S) * 1e6), pa.timestamp("us", tz="UTC"))
        corpus, mine = run_at(self._job.corpus, self._job.run_id, table_version)
        found = corpus.to_arrow(mine & where, [*COLUMNS, *_WRITER])
        self._since.events += _added(found)
        if found.num_rows:
            self._base = self._imitable(lessons_from(found))
        return len(self._base)

    def take_corpus(self, uri: str, env_id: str, episodes: int) -> int:
        """The newest accepted episodes of a task in any corpus, to imitate; returns how many there are.

        Raises `UserError` where there is none, or another tokenizer has written them. What is held out stays out.
        """
        corpus = open_corpus(uri)
        where = (pc.field("env_id") == env_id) & pc.field("trainable")
        found = corpus.to_arrow(where, [*COLUMNS, "started_at"]).sort_by([("started_at", "descending")])
        lessons = lessons_from(found) if found.num_rows else Lessons()
        if len(lessons):
            lessons = self._imitable(lessons)
            lessons = lessons.take(np.arange(min(episodes, len(lessons))))
        if not len(lessons):
            more = _other_versions(corpus, env_id)
            raise UserError(f"{uri} holds no accepted episodes of {env_id} to learn from{more}")
        own = Tokenizer(PolicySpec.from_json(self._job.policy).tokenizer).digest
        wrote = set(pc.unique(pc.struct_field(found.column("reasoning").combine_chunks(), "tokenizer")).to_pylist())
        if wrote != {own}:
            raise UserError(f"the episodes of {env_id} in {uri} were written with another tokenizer than this policy's")
        self._since.events.append({"what": "refill", "table_version": corpus.version})
        self._base = lessons
        return len(lessons)

    def recall_own(self, table_version: int, rounds: int, last: float) -> None:
        """After a restart: what the rounds before had added to what is imitated, as far as the window still holds it.

        last: a time, seconds since 1970, before which all of these rounds had begun; 0: not known. Reads from there
        backwards, further and further, until the window is full.
        """
        back = _BACK_S
        while True:
            first = max(0.0, last - back)
            found = self._archived(table_version, pc.field("origin") == "cot_rl", first)
            lessons = lessons_from(found) if found.num_rows else Lessons()
            of = np.array([round_of(group) for group in lessons.names.get("group", [])], int)
            lowest = int(min(of[of >= 0], default=rounds))
            # What is older may belong to the rounds that were sampled side by side with the oldest one found.
            whole = 0 if first == 0 else lowest + 1 + self._config.learner.max_staleness
            self._own = Lessons()
            for number in range(whole, rounds):
                some = np.flatnonzero(of == number)
                if len(some):
                    self.keep(lessons.take(some), np.random.default_rng([self._config.run.seed, 2, number]))
            if first == 0 or len(self._own) >= self._config.expert.window:
                self._since.events += _added(found)
                return
            back = last if lowest == 0 else 4 * back

    def _archived(self, table_version: int, where: pc.Expression, began: float) -> pa.Table:
        """Episodes of the run that were begun since a time, with their writers."""
        corpus, mine = run_at(self._job.corpus, self._job.run_id, table_version)
        columns = [*COLUMNS, *_WRITER]
        empty = corpus.dataset.schema.empty_table().select(columns)
        return pa.concat_tables([empty, *since(corpus, mine & where, began, columns)])

    def _read(self, given: Sequence[Given], recalled: Recalled | None) -> Lessons:
        """The lines of archived episodes: each part comes with its receipt, or from the archive itself."""
        tables = []
        if recalled is not None:
            mine = pc.field("reasoning", "group_id").isin(recalled.groups) & (pc.field("origin") == "cot_rl")
            found = self._archived(recalled.table_version, mine, recalled.since)
            self._since.events += _added(found)
            tables.append(found.select(list(COLUMNS)))
        for receipt, handed in given:
            batch = episodes_of(receipt, handed, self._job.corpus)
            numbers = batch.column("number")
            place = {"slot": receipt.slot, "epoch": receipt.epoch}
            span = {"first": numbers[0].as_py(), "last": numbers[-1].as_py()}
            self._since.events.append({"what": "add", **place, **span})
            tables.append(pa.Table.from_batches([batch]).select(list(COLUMNS)))
        return lessons_from(pa.concat_tables(tables))

    def _trained(self, first: int) -> None:
        if self._learner.step > first:
            self._since.events.append({"what": "train", "first_step": first, "last_step": self._learner.step - 1})

    def _lesson(self, report: dict[str, float]) -> Lesson:
        return Lesson(self._learner.step, self._learner.samples, report, self._learner.training)

    @ray.method(num_returns=2)
    def publish(self, version: int) -> tuple[Issue, dict[str, Array]]:
        """Writes the weights under a version, or the next free one; returns what made them, and them."""
        tensors = self._learner.weights()
        meta = {"step": self._learner.step, "samples": self._learner.samples, **self._since.about()}
        version = weights.save_version(self._job.run_uri, version, tensors, meta)
        c = self._config
        how = {"seed": c.run.seed, "algorithm": c.learner.algorithm, "batch": c.warm.batch, "corpus": c.warm.corpus}
        return self._since.published(version, weights.digest(tensors), json.dumps(how)), tensors

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Writes everything that `restore` needs to `checkpoints/NAME` of the run. state: of the run, kept with it."""
        uri = run_files.checkpoint_uri(self._job.run_uri, name)
        self._learner.save(uri, {"first_rl_step": self._first_rl_step, **self._since.kept()}, state)

    def export(self) -> str:
        """Writes the policy as a Hugging Face directory below the run; returns its place."""
        uri = storage.join(self._job.run_uri, "policy")
        save(self._learner.learner.policy, uri)
        return uri


def _other_versions(corpus: Snapshot, env_id: str) -> str:
    """The end of a sentence that names episodes of other versions of a task; "" where there are none."""
    name = env_id.rpartition("-v")[0]
    known = pc.unique(corpus.to_arrow(pc.field("trainable"), ["env_id"]).column("env_id")).to_pylist()
    others = sorted(one for one in known if one.rpartition("-v")[0] == name and one != env_id)
    return f"; those of {', '.join(others)} may hold problems that are held out now" if others else ""


def _added(episodes: pa.Table) -> list[dict[str, Any]]:
    """The events of rows that were read: a range of numbers each, by writer."""
    places = zip(*(episodes.column(name).to_pylist() for name in ("slot", "epoch", "number")), strict=True)
    events: list[dict[str, Any]] = []
    for slot, epoch, number in sorted(places):
        last = events[-1] if events else None
        if last is not None and (last["slot"], last["epoch"], last["last"]) == (slot, epoch, number - 1):
            last["last"] = number
        else:
            events.append({"what": "add", "slot": slot, "epoch": epoch, "first": number, "last": number})
    return events


def round_of(group: str) -> int:
    """The round in a group's name, such as "r000012-003"; -1 for other groups."""
    return int(group[1:].split("-")[0]) if group.startswith("r") else -1


def sampling_of(config: ReasoningConfig) -> Sampling:
    """How the run samples."""
    g = config.generation
    return Sampling(g.temperature, g.top_k, g.top_p, g.max_tokens, g.stop)


def _plain(lessons: Lessons) -> Lessons:
    """Only what imitation needs: what is drawn by weight counts once."""
    return Lessons(lessons.ids, {"mask": lessons.tokens["mask"]}, {}, {})


def _means(reports: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in reports])) for name in reports[0]} if reports else {}
