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
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from selfplay.actors.reasoner import Ask, ReasonerReport
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.errors import UserError
from selfplay.io import run_files
from selfplay.rollout.sampling import Sampling
from selfplay.store.corpus.newest import since
from selfplay.store.table.changes import run_at
from trainers.reasoning.actors import ReasoningCrew
from trainers.reasoning.algorithms.expert_iteration import Gate
from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.reasoning.config import DEVELOPMENT, ReasoningConfig
from trainers.reasoning.curriculum import Curriculum
from trainers.reasoning.learner_actor import Lesson, Recalled, round_of, sampling_of
from trainers.reasoning.problem_splits import frontier_of, levels_of
from trainers.reasoning.problems import Found, Problems
from trainers.reasoning.state import ReasoningState
from trainers.reasoning.status import ReasoningSummary
from trainers.reasoning.status_tracker import ReasoningWatch
from trainers.reasoning.workers import Call, Staff, TutorDied
from trainers.run.restore import Restored
from trainers.run.run_folder import RunFolder
from trainers.run.weights_lineage import Issue

_WARM_CHUNK_S = 2.0
_SOLVER_ASKS = 1_000


@dataclass
class _Flight:
    """A round under way. since: no sample of it is older, seconds since 1970. given: what was archived of it, once it
    has landed."""

    asks: list[Ask]
    calls: list[Call]
    since: float
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
        self.follows = ALGORITHMS[config.learner.algorithm].follows
        self.staff = Staff(crew, watch)
        self.version = -1  # newest published
        self.digest = ""
        self.flying: dict[int, _Flight] = {}  # rounds that are being sampled
        self.checkpointed = self.measured = time.monotonic()
        self.measuring_s: float | None = None  # for how long the held-out problems were answered last
        self.reached: list[float] = []  # accuracy on the development split, of this learner's versions
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
            except TutorDied:
                self.watch.message("the learner died; another goes on from the last checkpoint")
        self.finish()
        self.crew.close(self.stop.is_set())
        return self.watch.summary(self.ended_by or "interrupted")

    def begin(self) -> None:
        """Starts archive and reasoners."""
        self.watch.activity("opening the archive")
        self.staff.archived = self.crew.open_archive(self.crew.about_agent())
        self.watch.count_archived()
        self.watch.activity("starting the reasoners")
        self.crew.publish_kept(self.crew.first_weights)
        self.folder.tell_damage(self.watch.message)
        self.version, self.digest = self.folder.state.version, self.folder.state.digest
        self.staff.lose(self.crew.lost_episodes)
        self.staff.begin()

    def restore(self) -> None:
        """Makes a learner; everything counted is as at its checkpoint. The archive knows what came after."""
        for number in sorted(self.flying):  # a former learner's: the archive is to have them all
            self._land(self.flying[number])
        state = self.folder.reload()
        task, c = self.crew.task, self.config
        self.levels = levels_of(c, task.spec)
        self.watch.activity("loading the learner")
        self.staff.tutor = self.crew.tutor()
        state = self.state = self._restored(state)
        self.problems = Problems(task, self.levels, c.run.seed, state.cursors, self._rounds_found(), state.taken)
        self.curriculum = Curriculum(self.levels, c.curriculum.floor, c.curriculum.decay)
        if state.curriculum:
            self.curriculum.recall(state.curriculum)
        self.gate = self._gate(state.gate.get("level"))
        self.ended_by = self.ended_by if self.ended_by == "time" else None
        self.reached.clear()  # of a learner that is gone
        self.flying.clear()
        lesson: Lesson = self.staff.learned(self.staff.tutor.standing.remote())
        if state.checkpoint is not None:
            self.watch.activity("giving the learner its archived episodes again")
            if c.learner.algorithm == "expert":  # the others imitate in the warm start only, which recalls for itself
                self._recall_imitated(state)
            self.publish(lesson)

    def _recall_imitated(self, state: ReasoningState) -> None:
        """Gives a learner that imitates for as long as it lives what it had imitated before."""
        w, tutor, archived = self.config.warm, self.staff.tutor, self.staff.archived
        if w.corpus is not None:
            self.staff.learned(tutor.take_corpus.remote(w.corpus, self.crew.spec.id, w.episodes))
        else:
            self.staff.learned(tutor.recall_base.remote(archived, state.warmed or None))
        self.staff.learned(tutor.recall_own.remote(archived, state.round, state.since))

    def _restored(self, state: ReasoningState) -> ReasoningState:
        """Has the new learner go on from a checkpoint; the state that belongs to it, also where it is an older one."""
        if state.checkpoint is None:
            return state
        found: Restored = self.staff.learned(self.staff.tutor.restore.remote(self.folder.checkpoints()))
        self.folder.pass_over(found.damaged, found.place or "a new learner, which learns from the archive")
        self.folder.tell_damage(self.watch.message)
        if found.checkpoint == state.checkpoint:
            return state
        return self.folder.went_back(found.checkpoint, found.state)

    def _gate(self, level: float | None) -> Gate | None:
        """The frontier of expert iteration, at `level` or where it begins."""
        c = self.config
        if self.follows != "imitate":
            return None
        if level is not None and level not in self.levels:
            raise UserError(f"the run has come to difficulty {level:g}, and its task.difficulties lack that now")
        place = frontier_of(c, self.levels) if level is None else self.levels.index(level)
        return Gate(place, len(self.levels) - 1, c.expert.gate, min(100, c.expert.development))

    def _rounds_found(self) -> dict[int, dict[str, Found]]:
        """Groups that are archived already, of rounds that are to be learned from: by round and name."""
        if self.folder.new and self.staff.archived <= 0:
            return {}
        corpus, mine = run_at(self.folder.corpus, self.folder.run_id, self.staff.archived)
        mine &= pc.field("origin") == "cot_rl"
        rows: dict[str, list[tuple[Any, str]]] = {}
        for some in since(corpus, mine, self.state.since, ["reasoning", "verdicts"]):
            names = pc.struct_field(some.column("reasoning"), "group_id")
            newer = pc.greater_equal(names, f"r{self.state.round:06d}")
            for row in some.filter(newer).to_pylist():
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
            known = self.staff.learned(self.staff.tutor.take_corpus.remote(w.corpus, self.crew.spec.id, w.episodes))
            self.watch.message(f"{known:,} accepted episodes of {w.corpus} are imitated")
        else:
            self._work()
        if self.over():
            return
        theirs = w.corpus is not None or self.config.endpoint.teaches
        self.watch.activity("imitating the episodes" if theirs else "imitating the solver")
        self.state.warmed = time.time()
        chunk = 10
        while self.state.warm_steps < w.steps and not self.over():
            began, first = time.monotonic(), self.state.warm_steps
            lesson: Lesson = self.staff.learned(self.staff.tutor.warm.remote(first, min(chunk, w.steps - first)))
            self.staff.learner_works()
            self.state.warm_steps = min(w.steps, first + chunk)
            chunk = max(1, min(200, int(chunk * _WARM_CHUNK_S / max(1e-3, time.monotonic() - began))))
            self.watch.warmed(self.state.warm_steps, w.steps, lesson)
            self._now_and_then()
        self.publish(self.staff.learned(self.staff.tutor.standing.remote()))
        if not self.over():
            self.measure()

    def _work(self) -> None:
        """The solver's, or the teacher's, episodes into the archive, and to the learner."""
        w, teaches = self.config.warm, self.config.endpoint.teaches
        who, more = ("the teacher", ("taught", sampling_of(self.config))) if teaches else ("the solver", ("work",))
        self.watch.activity(f"{who} works on problems")
        asks = self.problems.worked(w.episodes, w.difficulties or self.levels, w.answer_only)
        have = self._worked_found()
        known = self.staff.learned(self.staff.tutor.recall_base.remote(self.staff.archived))
        missing = [ask for ask in asks if ask.group not in have]
        asks_a_time = 8 * self.config.endpoint.in_flight if teaches else _SOLVER_ASKS
        for first in range(0, len(missing), asks_a_time):
            if self.over():
                return
            given = self.staff.archive(self.staff.spread(missing[first : first + asks_a_time], *more))
            known = self.staff.learned(self.staff.tutor.take_base.remote(given))
            self.watch.activity(f"{who} works on problems: {known:,} solved, of {w.episodes:,}")
        if not known:
            raise UserError(f"{who} has solved none of {w.episodes:,} problems of {self.crew.spec.id} to imitate")

    def _worked_found(self) -> set[str]:
        if self.folder.new and self.staff.archived <= 0:
            return set()
        corpus, mine = run_at(self.folder.corpus, self.folder.run_id, self.staff.archived)
        found: set[str] = set()
        for batch in corpus.episodes(mine & pc.field("origin").isin(["solver", "teacher"]), ["reasoning"]):
            found.update(pc.struct_field(batch.column("reasoning"), "group_id").to_pylist())
        return found

    # -- rounds -------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Rounds until the run is over."""
        if self.follows == "nothing":
            self.ended_by = self.ended_by or "rounds"
            return
        if self.over():
            return
        if self.state.round == 0:
            self.staff.learned(self.staff.tutor.begin_learning.remote())
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
        began = self.state.since if have else time.time()
        calls = self.staff.spread(missing, "sample", sampling_of(self.config), self.crew.newest)
        return _Flight(asks, calls, began)

    def _land(self, flight: _Flight) -> None:
        """Awaits and archives the samples of a round. A writer's blocks are committed in their order: rounds too."""
        if flight.given is None:
            flight.given = self.staff.archive(flight.calls, flight.reports)

    def round(self, number: int) -> None:
        """One round: samples are awaited, archived, learned from; then the next version is there."""
        flight, before = self.flying[number], self.version
        with self.watch.during(f"answering the problems of round {number + 1:,}"):
            self._land(flight)
        del self.flying[number]
        given, reports = flight.given, flight.reports
        found = self.problems.found.pop(number, {})
        recalled = Recalled(self.staff.archived, sorted(found), flight.since) if found else None
        stale = max([before - report.version for report in reports], default=0)
        if self.follows == "imitate":
            call = self.staff.tutor.imitate.remote(given, number, self.config.expert.steps, recalled)
        else:
            call = self.staff.tutor.reinforce.remote(given, number, recalled)
        with self.watch.during(f"learning from round {number + 1:,}"):
            lesson: Lesson = self.staff.learned(call)
        states: dict[str, list[str]] = {name: list(one.states) for name, one in found.items()}
        for report in reports:
            for outcome in report.outcomes:
                states.setdefault(outcome.group, []).append(outcome.state)
        for ask in flight.asks:
            judged = [state for state in states.get(ask.group, ()) if state != "unverifiable"]
            self.curriculum.record(ask.difficulty, [float(state == "accepted") for state in judged])
        self.staff.learner_works()
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
        with self.watch.during(f"answering {len(asks):,} problems at the frontier, level {level:g}"):
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

    def publish(self, lesson: Lesson) -> None:
        """Weights n + 1: written, entered in the side tables, then handed out."""
        version = max([self.version, *run_files.versions(self.folder.uri)]) + 1
        issue_ref, tensors = self.staff.tutor.publish.remote(version)
        issue: Issue = self.staff.learned(issue_ref)
        self.crew.enter_policy(issue.version, issue.digest, issue.parent_digest, lesson.step, lesson.samples)
        self.crew.enter_use(issue, self.staff.archived)
        self.crew.publish(issue.version, issue.digest, tensors)
        self.version, self.digest = issue.version, issue.digest

    # -- measuring and keeping ----------------------------------------------------------------------------------

    def measure(self) -> None:
        """Greedy answers to held-out problems, the headline; and to others, where those decide when the run ends."""
        c = self.config.evaluation
        levels = [float(level) for level in (c.difficulties or self.levels)]
        asks = self.problems.measured(self.version, "held_out", levels, c.problems)
        began = time.monotonic()
        with self.watch.during(f"answering {len(asks):,} held-out problems", self.measuring_s):
            outcomes = [o for report in self._measured(asks) for o in report.outcomes]
        self.measuring_s = time.monotonic() - began
        self.watch.examined(self.version, levels, outcomes)
        problems = c.development or (DEVELOPMENT if self.config.run.target is not None else None)
        if problems is not None:
            self._develop(levels, problems)
        self.measured = time.monotonic()

    def _develop(self, levels: list[float], problems: int) -> None:
        """Greedy answers to problems of the development split: they may decide what held-out problems must not."""
        asks = self.problems.measured(self.version, "development", levels, problems)
        with self.watch.during(f"answering {len(asks):,} problems of the development split"):
            outcomes = [o for report in self._measured(asks) for o in report.outcomes]
        self.reached.append(self.watch.developed(outcomes))
        target = self.config.run.target
        if target is not None and len(self.reached) > 1 and min(self.reached[-2:]) >= target:
            self.ended_by = "target"

    def _measured(self, asks: list[Ask]) -> list[ReasonerReport]:
        for number in sorted(self.flying):
            self._land(self.flying[number])
        greedy = Sampling(0.0, max_tokens=self.config.generation.max_tokens, stop=self.config.generation.stop)
        reports: list[ReasonerReport] = []
        self.staff.archive(self.staff.spread(asks, "sample", greedy, self.crew.newest, True), reports)
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
        """Learner and everything counted, as one: the state names the checkpoint that it belongs to."""
        state = self.state
        name = f"{self.crew.epoch:06d}-{state.warm_steps:06d}-{state.round:06d}.safetensors"
        state.checkpoint, state.version, state.digest = name, self.version, self.digest
        flying = [ask for flight in self.flying.values() for ask in flight.asks]
        state.cursors, state.taken = self.problems.state(flying)
        begun = [flight.since for flight in self.flying.values()]
        state.since = min([time.time(), *begun, *([state.since] if self.problems.found else [])])
        state.curriculum = self.curriculum.state()
        state.lost_episodes, state.in_flight = self.staff.lost, self.staff.in_flight()
        state.gate = {"level": self.levels[self.gate.level]} if self.gate is not None else {}
        self.watch.note(state)
        with self.watch.during("saving a checkpoint"):
            self.staff.learned(self.staff.tutor.checkpoint.remote(name, asdict(state)))
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
            if not interrupted and (self.state.round or self.follows == "nothing"):
                self.measure()
            self.checkpoint()
            self.watch.activity("saving the policy")
            self.staff.learned(self.staff.tutor.export.remote())
        except TutorDied:
            self.watch.message("the learner died at the end; the next start learns the rest from the archive")
