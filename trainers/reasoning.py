"""The loop of reasoning: ask, sample, verify, archive, learn, publish, measure. Read it from top to bottom.

A warm start imitates a solver's worked solutions. Then rounds: problems are drawn, each is answered several times, a
verifier judges every answer, all is archived, and the policy learns from what the archive has acknowledged: by
reinforcement (GRPO, RLOO, PPO) or by imitating what it solved itself (expert iteration).

    driver ──asks──> reasoners ──(report, episodes)──> driver ──blocks──> archivist ──receipts──> driver
       ^                 ^                                                              (receipt, episodes) │
       │                 └────── weights n+1 ── weight server <── publish ── tutor <────────────────────────┘

What a round asks follows from settings, seed and what was counted before it. So after a crash the rounds since the
last checkpoint are learned from again, out of the archive, and only what was not archived is sampled again.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc
import ray
from ray.exceptions import RayActorError

from selfplay import run_files
from selfplay.actors.reasoner import Ask, ReasonerReport
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.errors import UserError
from selfplay.rollout.sampling import Sampling
from selfplay.store import open as open_corpus
from trainers.curriculum import Curriculum
from trainers.problems import Found, Problems
from trainers.reasoning_config import ReasoningConfig
from trainers.reasoning_crew import ReasoningCrew
from trainers.reasoning_status import ReasoningSummary
from trainers.reasoning_watch import ReasoningWatch
from trainers.rejection import Gate
from trainers.run_folder import ReasoningState, RunFolder
from trainers.tutor import Lesson, Recalled, round_of, sampling_of

_MOST_DEATHS = 3
_WARM_CHUNK_S = 2.0
_SOLVER_ASKS = 1_000


class _TutorDied(Exception):
    """The learner is gone: another goes on from the last checkpoint."""


@dataclass
class _Call:
    """What a reasoner was asked. actor: as it was then; another may have taken its place."""

    slot: str
    actor: Any
    asks: list[Ask]
    method: str
    more: tuple[Any, ...]
    report: Any = None
    episodes: Any = None

    def send(self) -> _Call:
        self.report, self.episodes = getattr(self.actor, self.method).remote(self.asks, *self.more)
        return self


@dataclass
class _Flight:
    """A round under way. given: what was archived of it, once it has landed."""

    asks: list[Ask]
    calls: list[_Call]
    given: list[Any] | None = None
    reports: list[ReasonerReport] = field(default_factory=list)


class Course:
    """One driver's part of a run; `run` is all that others call."""

    def __init__(
        self,
        config: ReasoningConfig,
        folder: RunFolder[ReasoningState],
        crew: ReasoningCrew,
        watch: ReasoningWatch,
        stop: threading.Event,
    ) -> None:
        self.config, self.folder, self.crew, self.watch, self.stop = config, folder, crew, watch, stop
        self.reasoners: dict[str, Any] = {}
        self.tutor: Any = None
        self.deaths: Counter[str] = Counter()
        self.archived = -1  # version of the episodes table that holds every receipt so far
        self.version = -1  # newest published
        self.digest = ""
        self.flying: dict[int, _Flight] = {}  # rounds that are being sampled
        self.checkpointed = self.measured = time.monotonic()
        self.ended_by: Any = None

    # -- the whole run ------------------------------------------------------------------------------------------

    def run(self) -> ReasoningSummary:
        self.begin()
        while True:
            try:
                self.restore()
                self.warm()
                self.learn()
                break
            except _TutorDied:
                self.watch.message("the learner died; another goes on from the last checkpoint")
        self.finish()
        return self.watch.summary(self.ended_by or "interrupted")

    def begin(self) -> None:
        """Starts archive and reasoners."""
        self.watch.activity("opening the archive")
        self.archived = self.crew.open_archive(self.crew.about_agent())
        self.watch.activity("starting the reasoners")
        if not self.crew.kept_versions():
            self.crew.publish_first(self.crew.first_weights())
        else:
            self.crew.publish_kept()
        self.version, self.digest = self.folder.state.version, self.folder.state.digest
        for number in range(self.crew.sizing.reasoners):
            self.reasoners[f"r{number:04d}"] = self.crew.reasoner(f"r{number:04d}")

    def restore(self) -> None:
        """Makes a learner; everything counted is as at its checkpoint. The archive knows what came after."""
        for number in sorted(self.flying):  # a former learner's: the archive is to have them all
            self._land(self.flying[number])
        state = self.state = self.folder.reload()
        task, c = self.crew.task, self.config
        self.levels = [float(level) for level in (c.task.difficulties or task.spec.difficulties)]
        unknown = [level for level in self.levels if level not in task.spec.difficulties]
        if unknown:
            known = ", ".join(f"{level:g}" for level in task.spec.difficulties)
            raise UserError(f"{task.spec.id} has no difficulty {unknown[0]:g}; it has {known}")
        self.problems = Problems(task, self.levels, c.run.seed, state.cursors, self._rounds_found(), state.taken)
        self.curriculum = Curriculum(self.levels, c.curriculum.floor, c.curriculum.decay)
        if state.curriculum:
            self.curriculum.recall(state.curriculum)
        self.gate = self._gate(state.gate.get("level"))
        self.ended_by = self.ended_by if self.ended_by == "time" else None
        self.flying.clear()
        self.watch.activity("loading the learner")
        self.tutor = self.crew.tutor()
        uri = self.folder.checkpoint_uri(state.checkpoint) if state.checkpoint else None
        lesson: Lesson = self._learned(self.tutor.resume.remote(uri))
        if state.checkpoint is not None:
            if c.warm.corpus is not None:
                self._learned(self.tutor.take_corpus.remote(c.warm.corpus, task.spec.id, c.warm.episodes))
            else:
                self._learned(self.tutor.recall_base.remote(self.archived))
            if c.learner.algorithm == "expert":
                self._learned(self.tutor.recall_own.remote(self.archived, state.round))
            self.publish(lesson, (state.version, state.digest))

    def _gate(self, level: float | None) -> Gate | None:
        """The frontier of expert iteration, at `level` or where it begins."""
        c = self.config
        if c.learner.algorithm != "expert":
            return None
        warm = c.warm.difficulties or self.levels
        above = [known for known in self.levels if known > max(warm)]
        start = c.expert.start if c.expert.start is not None else (above[0] if above else self.levels[-1])
        start = start if level is None else level
        if start not in self.levels:
            raise UserError(f"expert.start = {start:g} is none of the task's difficulties")
        place = self.levels.index(start)
        return Gate(place, len(self.levels) - 1, c.expert.gate, min(100, c.expert.development))

    def _rounds_found(self) -> dict[int, dict[str, Found]]:
        """Groups that are archived already, of rounds that are to be learned from: by round and name."""
        if self.folder.new and self.archived <= 0:
            return {}
        mine = (pc.field("run_id") == self.folder.run_id) & (pc.field("origin") == "cot_rl")
        rows: dict[str, list[tuple[Any, str]]] = {}
        for batch in open_corpus(self.folder.corpus, self.archived).episodes(mine, ["reasoning", "verdicts"]):
            names = pc.struct_field(batch.column("reasoning"), "group_id")
            newer = pc.greater_equal(names, f"r{self.state.round:06d}")
            for row in batch.filter(newer).to_pylist():
                one = row["reasoning"]
                rows.setdefault(one["group_id"], []).append((one, row["verdicts"][0]["state"]))
        found: dict[int, dict[str, Found]] = {}
        for name, samples in rows.items():
            one = samples[0][0]
            chosen = [turn["text"] for turn in one["turns"] if turn["role"] == CHANCE_ROLE]
            chance = json.loads(chosen[0])["probability"] if chosen else None
            ask = Ask(one["problem_seed"], one["difficulty"], name, len(samples), chance)
            found.setdefault(round_of(name), {})[name] = Found(ask, tuple(state for _, state in samples))
        return found

    # -- the warm start -----------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Solver episodes into the archive, then steps of imitation on them."""
        w = self.config.warm
        if not w.episodes or self.state.warm_steps >= w.steps:
            return
        self.watch.phase("warming")
        if w.corpus is not None:
            known = self._learned(self.tutor.take_corpus.remote(w.corpus, self.crew.spec.id, w.episodes))
            self.watch.message(f"{known:,} accepted episodes of {w.corpus} are imitated")
        else:
            self._work()
        if self.stop.is_set():
            return
        self.watch.activity("imitating the solver" if w.corpus is None else "imitating the episodes")
        chunk = 10
        while self.state.warm_steps < w.steps and not self.over():
            began, first = time.monotonic(), self.state.warm_steps
            lesson: Lesson = self._learned(self.tutor.warm.remote(first, min(chunk, w.steps - first)))
            del self.deaths["learner"]
            self.state.warm_steps = min(w.steps, first + chunk)
            chunk = max(1, min(200, int(chunk * _WARM_CHUNK_S / max(1e-3, time.monotonic() - began))))
            self.watch.warmed(self.state.warm_steps, w.steps, lesson)
            self._now_and_then()
        self.publish(self._learned(self.tutor.resume.remote(None)))
        if not self.over():
            self.measure()

    def _work(self) -> None:
        """The solver's episodes into the archive, and to the learner."""
        w = self.config.warm
        self.watch.activity("the solver works on problems")
        asks = self.problems.worked(w.episodes, w.difficulties or self.levels, w.answer_only)
        have = self._worked_found()
        self._learned(self.tutor.recall_base.remote(self.archived))
        missing = [ask for ask in asks if ask.group not in have]
        for first in range(0, len(missing), _SOLVER_ASKS):
            if self.stop.is_set():
                return
            given = self._archive(self._spread(missing[first : first + _SOLVER_ASKS], "work"))
            known = self._learned(self.tutor.take_base.remote(given))
            self.watch.activity(f"the solver works on problems: {known:,} of {w.episodes:,}")

    def _worked_found(self) -> set[str]:
        if self.folder.new and self.archived <= 0:
            return set()
        mine = (pc.field("run_id") == self.folder.run_id) & (pc.field("origin") == "solver")
        found: set[str] = set()
        for batch in open_corpus(self.folder.corpus, self.archived).episodes(mine, ["reasoning"]):
            found.update(pc.struct_field(batch.column("reasoning"), "group_id").to_pylist())
        return found

    # -- rounds -------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Rounds until the run is over."""
        if self.config.learner.algorithm == "sft":
            self.ended_by = self.ended_by or "rounds"
            return
        if self.over():
            return
        if self.state.round == 0:
            self._learned(self.tutor.begin_learning.remote())
            self.checkpoint()
            if not self.config.warm.steps:
                self.measure()
        self.watch.phase("learning")
        while not self.over():
            number = self.state.round
            last = self.config.run.rounds or number + 1 + self.config.learner.max_staleness
            for ahead in range(number, min(last, number + 1 + self.config.learner.max_staleness)):
                if ahead not in self.flying:
                    self.flying[ahead] = self._launch(ahead)
            self.round(number)
            self._now_and_then()

    def _launch(self, number: int) -> _Flight:
        """Asks for the samples of a round, but for those that the archive holds already."""
        g, gate = self.config.generation, self.gate
        draw = self.curriculum.draw if self.config.curriculum.kind == "learnability" else self.problems.evenly
        if gate is not None:
            frontier = self.levels[gate.level]
            asks = self.problems.round(number, g.prompts, g.group, lambda rng: (frontier, 1.0))
        else:
            asks = self.problems.round(number, g.prompts, g.group, draw)
        have = self.problems.found.get(number, {})
        missing = [ask for ask in asks if ask.group not in have]
        return _Flight(asks, self._spread(missing, "sample", sampling_of(self.config), self.crew.newest))

    def _land(self, flight: _Flight) -> None:
        """Awaits and archives the samples of a round. A writer's blocks are committed in their order: rounds too."""
        if flight.given is None:
            flight.given = self._archive(flight.calls, flight.reports)

    def round(self, number: int) -> None:
        """One round: samples are awaited, archived, learned from; then the next version is there."""
        flight, before = self.flying[number], self.version
        self._land(flight)
        del self.flying[number]
        given, reports = flight.given, flight.reports
        found = self.problems.found.pop(number, {})
        recalled = Recalled(self.archived, sorted(found)) if found else None
        stale = max([before - report.version for report in reports], default=0)
        if self.config.learner.algorithm == "expert":
            call = self.tutor.imitate.remote(given, number, self.config.expert.steps, recalled)
        else:
            call = self.tutor.reinforce.remote(given, number, recalled)
        lesson: Lesson = self._learned(call)
        states: dict[str, list[str]] = {name: list(one.states) for name, one in found.items()}
        for report in reports:
            for outcome in report.outcomes:
                states.setdefault(outcome.group, []).append(outcome.state)
        for ask in flight.asks:
            judged = [state for state in states.get(ask.group, ()) if state != "unverifiable"]
            self.curriculum.record(ask.difficulty, [float(state == "accepted") for state in judged])
        del self.deaths["learner"]
        self.state.round = number + 1
        self.publish(lesson)
        self.watch.learned(number, lesson, reports, stale, self.curriculum)
        if self.gate is not None:
            self._knock()

    def _knock(self) -> None:
        """Measures the frontier on the development split: is it time for the next level?"""
        assert self.gate is not None
        level = self.levels[self.gate.level]
        asks = self.problems.measured(self.version, "development", [level], self.config.expert.development)
        outcomes = [o for report in self._measured(asks) for o in report.outcomes]
        solved = [float(o.state == "accepted") for o in outcomes if o.state != "unverifiable"]
        before = replace(self.gate, least=min(self.gate.least, len(asks)))
        self.gate = before.after(solved)
        rate = sum(solved) / max(1, len(solved))
        self.watch.frontier(level, rate)
        if self.gate.level != before.level:
            self.watch.message(f"difficulty {level:g} is mastered ({rate:.1%}): on to {self.levels[self.gate.level]:g}")
        elif before.level == before.highest and len(solved) >= before.least and rate >= before.threshold:
            self.ended_by = "target"

    # -- helpers of the rounds ----------------------------------------------------------------------------------

    def _spread(self, asks: list[Ask], method: str, *more: Any) -> list[_Call]:
        """Calls all reasoners, each with its share of the asks."""
        shares = {slot: asks[i :: len(self.reasoners)] for i, slot in enumerate(self.reasoners)}
        return [
            _Call(slot, self.reasoners[slot], share, method, more).send() for slot, share in shares.items() if share
        ]

    def _archive(self, calls: list[_Call], reports: list[ReasonerReport] | None = None) -> list[Any]:
        """Waits for calls, commits what they wrote; what a lesson is made of: (receipt, episodes) pairs."""
        taken = []
        for call in calls:
            report = self._awaited(call)
            if reports is not None:
                reports.append(report)
            if report.block is not None:
                taken.append((report.block, call.episodes))
            self.watch.sampled(report)
        if not taken:
            return []
        receipts = ray.get(self.crew.archivist.commit.remote([block for block, _ in taken]))
        self.archived = max([self.archived, *(receipt.table_version for receipt in receipts)])
        return [(receipt, [episodes]) for receipt, (_, episodes) in zip(receipts, taken, strict=True)]

    def _awaited(self, call: _Call) -> ReasonerReport:
        """The result of a call; asked again of another reasoner where this one has died."""
        while True:
            try:
                while not ray.wait([call.report], timeout=0.25)[0]:
                    self.watch.show()
                found: ReasonerReport = ray.get(call.report)
                del self.deaths[call.slot]
                return found
            except RayActorError as error:
                self._died(f"reasoner {call.slot}", call.slot, error)
                self.watch.message(f"reasoner {call.slot} died; another asks again for what it had not finished")
                dead, another = call.actor, self.crew.reasoner(call.slot)
                self.reasoners[call.slot] = another
                flights = [self.flying[number] for number in sorted(self.flying)]
                asked = [one for flight in flights if flight.given is None for one in flight.calls]
                for one in asked if call in asked else [*asked, call]:
                    if one.actor is dead:  # in the order of rounds, which is that of the writer's blocks
                        one.actor = another
                        one.send()

    def _learned(self, ref: Any) -> Any:
        """The learner's answer. Raises `_TutorDied` where it is gone."""
        try:
            while not ray.wait([ref], timeout=0.25)[0]:
                self.watch.show()
            return ray.get(ref)
        except RayActorError as error:
            self._died("the learner", "learner", error)
            raise _TutorDied from error

    def _died(self, who: str, key: str, error: RayActorError) -> None:
        print(f"{who} died: {error}", flush=True)  # to the log
        self.deaths[key] += 1
        if self.deaths[key] >= _MOST_DEATHS:
            raise UserError(f"{who} died {_MOST_DEATHS} times in a row; the newest file in logs/ holds its last words")

    def publish(self, lesson: Lesson, parent: tuple[int, str] | None = None) -> None:
        """Weights n + 1: written, entered in the side tables, then handed out. parent: what they were made of."""
        before, digest = (self.version, self.digest) if parent is None else parent
        version = max([self.version, *run_files.versions(self.folder.uri)]) + 1
        made_ref, tensors = self.tutor.publish.remote(version)
        made = self._learned(made_ref)
        self.crew.enter_policy(version, made.digest, digest, lesson.step, lesson.samples)
        self.crew.enter_use(version, made, before, digest, self.archived)
        self.crew.publish(version, made.digest, tensors)
        self.version, self.digest = version, made.digest

    # -- measuring and keeping ----------------------------------------------------------------------------------

    def measure(self) -> None:
        """Greedy answers to held-out problems: the headline."""
        c = self.config.evaluation
        levels = [float(level) for level in (c.difficulties or self.levels)]
        asks = self.problems.measured(self.version, "held_out", levels, c.problems)
        outcomes = [o for report in self._measured(asks) for o in report.outcomes]
        self.measured = time.monotonic()
        reached = self.watch.examined(self.version, levels, outcomes)
        target = self.config.run.target
        if target is not None and len(reached) > 1 and min(reached[-2:]) >= target:
            self.ended_by = "target"

    def _measured(self, asks: list[Ask]) -> list[ReasonerReport]:
        for number in sorted(self.flying):
            self._land(self.flying[number])
        greedy = Sampling(0.0, max_tokens=self.config.generation.max_tokens, stop=self.config.generation.stop)
        reports: list[ReasonerReport] = []
        self._archive(self._spread(asks, "sample", greedy, self.crew.newest, True), reports)
        return reports

    def over(self) -> bool:
        if self.stop.is_set():
            return True
        if self.ended_by is None:
            rounds = self.config.run.rounds
            if rounds is not None and self.state.round >= rounds:
                self.ended_by = "rounds"
            elif self.watch.elapsed() >= 60.0 * self.config.run.minutes:
                self.ended_by = "time"
        return self.ended_by is not None

    def _now_and_then(self) -> None:
        self.watch.show()
        if time.monotonic() - self.measured >= self.config.evaluation.every_s and self.state.round:
            self.measure()
        if time.monotonic() - self.checkpointed >= self.config.run.checkpoint_every_s:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Learner and everything counted, as one: `state.json` names the checkpoint that it belongs to."""
        state = self.state
        name = f"{self.crew.epoch:06d}-{state.warm_steps:06d}-{state.round:06d}.safetensors"
        self._learned(self.tutor.checkpoint.remote(name))
        state.checkpoint, state.version, state.digest = name, self.version, self.digest
        flying = [ask for flight in self.flying.values() for ask in flight.asks]
        state.cursors, state.taken = self.problems.state(flying)
        state.curriculum = self.curriculum.state()
        state.gate = {"level": self.levels[self.gate.level]} if self.gate is not None else {}
        self.watch.note(state)
        self.folder.save()
        self.crew.forget_old()
        self.checkpointed = time.monotonic()

    def finish(self) -> None:
        """Learns from what is under way, measures the last version, saves all, writes the policy for others."""
        self.watch.draining()
        interrupted = self.stop.is_set()
        try:
            for number in sorted(self.flying):
                self.round(number)
            if not interrupted and (self.state.round or self.config.learner.algorithm == "sft"):
                self.measure()
            self.checkpoint()
            self._learned(self.tutor.export.remote())
        except _TutorDied:
            self.watch.message("the learner died at the end; what was archived is safe, run again to go on")
