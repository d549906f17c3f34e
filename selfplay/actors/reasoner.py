"""The actor that reasons: pulls weights, holds dialogues, seals and writes them, and hands them on.

A call returns two objects: a small report for the driver, and the sealed episodes as Arrow for the learner, which the
driver passes on by reference once the committer has acknowledged them. What a call that dies had sampled is lost and
sampled again: nothing of it was sealed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import psutil
import pyarrow as pa
import ray
import torch

from selfplay.actors import notice
from selfplay.actors.weights import Published
from selfplay.contract import TaskSpec
from selfplay.environments import registry
from selfplay.environments.author import FAILURES, OTHER, TIMEOUT
from selfplay.environments.task import Posed, Task
from selfplay.episode import EPISODES, Episode, Provenance
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.io import storage
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.dialogue import Assignment, Dialogues, Recorder, Speaker
from selfplay.rollout.endpoint import Endpoint, EndpointEngine
from selfplay.rollout.engine import Engine
from selfplay.rollout.sampling import Sampling
from selfplay.store.table.table import episodes_uri
from selfplay.store.table.write import Block, Writer


@dataclass(frozen=True)
class ReasonerJob:
    """Everything a reasoner is told once. rows: most answers under way at once. seed: of this incarnation. engine:
    "own" or "vllm", which takes the share `gpu_memory` of a GPU's. endpoint: a frozen policy, which teaches, or answers
    for `endpoint_seats`. judges: transcripts that are judged at once; budget_s: seconds that a call may wait for
    verdicts alone; on_timeout: see `Task`.
    """

    env: registry.Portable
    policy: str
    provenance: Provenance
    corpus: str
    policy_id: str
    slot: str
    epoch: int
    first_block: int
    seed: int
    rows: int
    device: str
    threads: int
    engine: str = "own"
    gpu_memory: float = 0.5
    endpoint: Endpoint | None = None
    endpoint_seats: tuple[int, ...] = ()
    judges: int = 2
    budget_s: float = 120.0
    on_timeout: Literal["unverifiable", "rejected"] = "unverifiable"


@dataclass(frozen=True)
class Ask:
    """A problem to be worked on. group: of its samples. samples: how many. chance: of being chosen; see `Assignment`.

    bare: a solver's answer without the worked solution.
    """

    seed: int
    difficulty: float
    group: str
    samples: int = 1
    chance: float | None = None
    bare: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one sample. state, reason: of the verdict of seat 0; tokens: that policies wrote.

    failure: why verification failed, one of `selfplay.environments.author.FAILURES`; "" where it did not.
    """

    group: str
    difficulty: float
    state: str
    reward: float | None
    tokens: int
    cut: bool
    failure: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Shown:
    """A sample for people."""

    prompt: str
    answer: str
    reward: float | None
    reason: str
    difficulty: float
    episode_id: str


@dataclass(frozen=True)
class ReasonerReport:
    """What a call did. block: where its episodes were written; None without any. seconds: of generation; cpu_s: of
    processors, those that judge included.

    leaving: its node has been given notice; it begins no other call.
    """

    slot: str
    block: Block | None
    version: int
    outcomes: tuple[Outcome, ...]
    tokens: int
    seconds: float
    cpu_s: float
    shown: tuple[Shown, ...]
    leaving: bool = False


class Began:
    """When a call began, and what this process and its children had taken of processors by then."""

    def __init__(self) -> None:
        self._seconds, self._cpu_s = time.perf_counter(), _cpu_s()

    def spent(self) -> tuple[float, float]:
        """(seconds, seconds of processors) since then; of children that have ended meanwhile nothing is known."""
        return time.perf_counter() - self._seconds, max(0.0, _cpu_s() - self._cpu_s)


def _cpu_s() -> float:
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


class Reasoner:
    """Reasons with the newest weights. `weights` is the handle of a `WeightServer`, or None for those of the spec.

    What it is asked raises `notice.Leaving` where its node has been given notice.
    """

    def __init__(self, job: ReasonerJob, weights: Any) -> None:
        storage.refuse_unseen(episodes_uri(job.corpus))
        torch.set_num_threads(job.threads)
        self._job, self._weights = job, weights
        self._writer = Writer(job.corpus, job.slot, job.epoch, job.first_block)
        spec = registry.unpack_any(job.env)
        assert isinstance(spec, TaskSpec)
        self._task = Task(spec, processes=job.judges, on_timeout=job.on_timeout)
        policy_spec = PolicySpec.from_json(job.policy)
        self._engine = _engine(job, policy_spec)
        self._engine.version = -1
        self._tokenizer, self._context = Tokenizer(policy_spec.tokenizer), policy_spec.context
        self._digest: str | None = None
        self._frozen = None if job.endpoint is None else EndpointEngine(job.endpoint, self._tokenizer)
        self._recorder = Recorder(
            replace(job.provenance, host=os.uname().nodename), job.slot, job.epoch, self._task
        )

    def pid(self) -> int:
        """The process, for who wants to watch or to kill it."""
        return os.getpid()

    @ray.method(num_returns=2)
    def work(self, asks: Sequence[Ask]) -> tuple[ReasonerReport, pa.RecordBatch]:
        """A solver's episodes: worked solutions, or answers alone; judged and archived like any other."""
        notice.refuse_if_leaving()
        began, task = Began(), self._task
        works = []
        for ask, posed in self._posed(asks):
            bare = ask.bare or task.spec.solve is None
            text = task.gold(posed.problem) if bare else task.solution(posed.problem)
            works.append((Assignment(posed, ask.group, 0), text))
        return self._hand_over(self._recorder.all_worked(works, self._tokenizer, self._job.budget_s), began)

    @ray.method(num_returns=2)
    def taught(self, asks: Sequence[Ask], sampling: Sampling) -> tuple[ReasonerReport, pa.RecordBatch]:
        """Dialogues of the endpoint alone, in all seats: a teacher's episodes; right or wrong, all are archived."""
        notice.refuse_if_leaving()
        began = Began()
        works = [Assignment(posed, ask.group, 0) for ask, posed in self._posed(asks)]
        speakers = dict.fromkeys(range(self._task.spec.seats), self._endpoint(learns=True))
        return self._hand_over(_of("teacher", self._dialogues(speakers, sampling).hold(works)), began)

    @ray.method(num_returns=2)
    def sample(
        self, asks: Sequence[Ask], sampling: Sampling, newest: Published | None, held_out: bool = False
    ) -> tuple[ReasonerReport, pa.RecordBatch]:
        """Holds all dialogues with the newest weights. held_out: measured, archived and never to be trained on.

        newest: as known to whoever asks; a weight server that has died in between knows of none.
        """
        notice.refuse_if_leaving()
        self._refresh(newest)
        began = Began()
        works = []
        for ask, posed in self._posed(asks):
            works += [Assignment(posed, ask.group, i, ask.chance) for i in range(ask.samples)]
        speaker = Speaker(
            self._engine, self._tokenizer, self._job.policy_id, self._digest, self._context, learns=not held_out
        )
        speakers = dict.fromkeys(range(self._task.spec.seats), speaker)
        if self._job.endpoint_seats:
            speakers |= dict.fromkeys(self._job.endpoint_seats, self._endpoint(learns=False))
        episodes = list(self._dialogues(speakers, sampling).hold(works))
        if held_out:
            episodes = [replace(one, trainable=False) for one in _of("evaluation", episodes)]
        return self._hand_over(episodes, began)

    def _posed(self, asks: Sequence[Ask]) -> list[tuple[Ask, Posed]]:
        return list(zip(asks, self._task.poses([(ask.seed, ask.difficulty) for ask in asks]), strict=True))

    def _dialogues(self, speakers: dict[int, Speaker], sampling: Sampling) -> Dialogues:
        return Dialogues(self._recorder, speakers, sampling, self._job.budget_s)

    def _endpoint(self, learns: bool) -> Speaker:
        assert self._frozen is not None
        name = f"endpoint:{self._frozen.endpoint.model}"
        return Speaker(self._frozen, self._tokenizer, name, None, self._context, learns)

    def _refresh(self, newer: Published | None) -> None:
        """Takes the newest weights, if there are newer ones."""
        if self._weights is not None:
            newer = ray.get(self._weights.newer_than.remote(self._engine.version)) or newer
        if newer is not None and newer.version > self._engine.version:
            self._engine.load(newer.fetch(), newer.version)
            self._digest = newer.digest

    def _hand_over(self, episodes: list[Episode], began: Began) -> tuple[ReasonerReport, pa.RecordBatch]:
        seconds, cpu_s = began.spent()
        block, batch = self._writer.write(episodes) if episodes else (None, pa.RecordBatch.from_pylist([], EPISODES))
        outcomes = tuple(_outcome(episode) for episode in episodes)
        tokens = sum(outcome.tokens for outcome in outcomes)
        report = ReasonerReport(
            self._job.slot, block, self._engine.version, outcomes, tokens, seconds, cpu_s, _shown(episodes),
            notice.leaving(),
        )
        return report, batch


def _engine(job: ReasonerJob, spec: PolicySpec) -> Engine:
    if job.engine == "vllm":
        from selfplay.rollout.vllm_engine import VllmEngine  # needs what most machines have not

        return VllmEngine(spec, job.rows, job.seed, job.gpu_memory)
    return ContinuousEngine(fresh(spec, 0, job.device), job.rows, job.seed)


def _of(origin: str, episodes: Iterable[Episode]) -> list[Episode]:
    return [replace(one, provenance=replace(one.provenance, origin=origin)) for one in episodes]


def _outcome(episode: Episode) -> Outcome:
    assert episode.reasoning is not None and episode.verdicts is not None
    turns = episode.reasoning["turns"]
    tokens = sum(len(turn["token_ids"]) for turn in turns)
    first = episode.verdicts[0]
    return Outcome(
        episode.reasoning["group_id"],
        episode.reasoning["difficulty"],
        first["state"],
        first["reward"],
        tokens,
        episode.status == "truncated",
        _failure(first),
        _reason(first),
    )


def _failure(verdict: Mapping[str, Any]) -> str:
    """Why verification failed, as the archive says it."""
    names = {one["criterion"] for one in verdict["criteria"]}
    if verdict["state"] == "unverifiable":
        return next((kind for kind in FAILURES if kind in names), OTHER)
    return TIMEOUT if verdict["state"] == "rejected" and TIMEOUT in names else ""


def _reason(verdict: Any) -> str:
    """Why an answer was not accepted: of the first criterion that says so."""
    return verdict["error"] or next((one["reason"] for one in verdict["criteria"] if one["reason"]), "")


def _shown(episodes: Sequence[Episode]) -> tuple[Shown, ...]:
    """The newest that is right and the newest that is not."""
    found: dict[bool, Shown] = {}
    for episode in reversed(episodes):
        assert episode.reasoning is not None and episode.verdicts is not None
        first = episode.verdicts[0]
        right = first["state"] == "accepted"
        if right not in found:
            turns = [turn for turn in episode.reasoning["turns"] if turn["role"] != CHANCE_ROLE]
            end = next((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns))
            found[right] = Shown(
                "\n".join(turn["text"] for turn in turns[:end])[:2000],
                "\n".join(turn["text"] for turn in turns[end:])[:4000],
                first["reward"],
                _reason(first),
                episode.reasoning["difficulty"],
                episode.episode_id,
            )
        if len(found) == 2:
            break
    return tuple(found[right] for right in sorted(found, reverse=True))

