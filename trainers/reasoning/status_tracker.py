"""Keeps the clock and the counts of a reasoning run, and tells them: to the screen, to TensorBoard and to wandb."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Literal

from selfplay import store
from selfplay.actors.reasoner import Outcome, ReasonerReport
from selfplay.contract import TaskSpec
from selfplay.environments.author import FAILURES, OTHER
from selfplay.store.table import counts
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.curriculum import Curriculum
from trainers.reasoning.learner_actor import Lesson
from trainers.reasoning.stalls import RoundStall
from trainers.reasoning.state import ReasoningState
from trainers.reasoning.status import ReasoningPhase, ReasoningStatus, ReasoningSummary, Sample, Score
from trainers.run.event_log import note
from trainers.run.history_thinning import thinned
from trainers.run.metrics import ScalarWriter
from trainers.run.process_memory import proportional_bytes
from trainers.run.run_folder import RunFolder
from trainers.run.throughput import Busy, Spent

_SHOW_S = 0.25
_HISTORY = 400
#: Two-sided 95% of the normal distribution.
_Z = 1.959964


class ReasoningWatch:
    """What a person sees of a reasoning run, kept up to date by the loop."""

    def __init__(
        self,
        config: ReasoningConfig,
        spec: TaskSpec,
        folder: RunFolder[ReasoningState],
        sizing: str,
        cores: int,
        parameters: int,
        on_status: Callable[[ReasoningStatus], None],
    ) -> None:
        self._config, self._folder, self._tell = config, folder, on_status
        state, planned = folder.state, config.run.minutes * 60.0
        unfinished = state.total_s == planned and state.elapsed_s < 0.98 * planned
        self._before = state.elapsed_s if unfinished else 0.0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._shown = 0.0
        self._failures = Counter[str](state.failures)
        self._newest = Counter[str]()
        self._asked = 0
        self._busy = Busy("generation", "learning")
        self._active_since = self._began
        self._step = ""
        self._stall = RoundStall(config.learner.algorithm)
        self._scores = [Score(**score) for score in state.scores]
        self.status = ReasoningStatus(
            recipe=config.name,
            env=spec.id,
            out=folder.uri,
            corpus=folder.corpus,
            algorithm=config.learner.algorithm,
            parameters=parameters,
            sizing=sizing,
            cores=cores,
            total_s=planned,
            elapsed_s=self._before,
            warm_steps=state.warm_steps,
            warm_total=config.warm.steps,
            rounds=state.round,
        )
        self._tell_scores()
        self._tell_failures()
        self._scalars = ScalarWriter.of_run(folder, config, self.message)

    def count_archived(self) -> None:
        """Takes over what the run has archived before, as the log of the corpus counts it."""
        if not self._folder.new:
            before = counts.archived_by(store.open(self._folder.corpus), self._folder.run_id)
            self._set(episodes=before.episodes)

    # -- the clock ----------------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds of the present plan, those before an interruption included."""
        return self._before + (self._ended or time.monotonic()) - self._began

    def note(self, state: ReasoningState) -> None:
        """Puts clock and scores into the run's state, to be saved."""
        state.total_s, state.elapsed_s = self.status.total_s, self.elapsed()
        state.scores = [asdict(score) for score in self._scores]
        state.wandb_id = self._scalars.wandb_id
        state.failures = dict(self._failures)

    # -- events -------------------------------------------------------------------------------------------------

    def phase(self, phase: ReasoningPhase) -> None:
        self._set(phase=phase, activity="")
        self._tell(self.status)

    def activity(self, text: str, expected_s: float | None = None) -> None:
        """What goes on now, and about how long it will take."""
        self._active_since, self._step = time.monotonic(), ""
        self._set(activity=text, activity_s=0.0, activity_expected_s=expected_s)
        self._tell(self.status)

    @contextmanager
    def during(self, text: str, expected_s: float | None = None) -> Iterator[None]:
        """The activity of a step within another, which goes on afterwards."""
        before = self.status.activity
        self.activity(text, expected_s)
        self._step = text
        yield
        self.activity(before)

    def answered(self, done: int, total: int) -> None:
        """So many of the problems of this step are answered."""
        if self._step and done < total:
            self._set(activity=f"{self._step}: {done:,} of {total:,}")

    def message(self, text: str) -> None:
        self._set(messages=(*self.status.messages[-4:], text))

    def sampled(self, report: ReasonerReport) -> None:
        """A call of a reasoner was archived."""
        status = self.status
        samples = tuple(Sample(**asdict(shown)) for shown in report.shown) or status.samples
        self._failures.update(outcome.failure for outcome in report.outcomes if outcome.failure)
        self._busy.did("generation", Spent(report.seconds, report.cpu_s))
        speed = status.tokens_per_s
        if report.tokens and report.version >= 0:  # not the solver's
            speed = report.tokens / max(1e-9, report.seconds)
        self._set(
            episodes=status.episodes + len(report.outcomes),
            tokens=status.tokens + report.tokens,
            tokens_per_s=speed,
            samples=samples,
        )
        if self._failures:
            self._tell_failures()

    def lost(self, episodes: int) -> None:
        """So many episodes died with a process, since the run began."""
        self._set(lost=episodes)

    def warmed(self, steps: int, total: int, lesson: Lesson) -> None:
        """Steps of the warm start were taken."""
        self._learned(lesson)
        loss = lesson.report.get("nll")
        self._set(warm_steps=steps, warm_total=total, loss=loss, activity="imitating the solver")
        if loss is not None:
            self._write({"warm/nll": loss, "warm/steps": steps, "run/elapsed_s": self.elapsed()})

    def _learned(self, lesson: Lesson) -> None:
        self._busy.did("learning", lesson.spent)
        way, how = lesson.training.name, str(lesson.training)
        if lesson.training.us and way not in self.status.choices:
            self._set(choices={**self.status.choices, way: how})
            note(self._folder.run_id, "chosen", what="training", how=how)
            self.message(f"training: {how}")

    def learned(
        self,
        number: int,
        lesson: Lesson,
        reports: Sequence[ReasonerReport],
        stale: int,
        curriculum: Curriculum,
    ) -> None:
        """A round was learned from, and a version published."""
        self._learned(lesson)
        r = lesson.report
        outcomes = [outcome for report in reports for outcome in report.outcomes]
        known = [outcome.reward for outcome in outcomes if outcome.reward is not None]
        self._newest, self._asked = Counter(o.failure for o in outcomes if o.failure), len(outcomes)
        self._tell_failures()
        reward = r.get("reward", sum(known) / len(known) if known else None)
        length = r.get("length", sum(o.tokens for o in outcomes) / len(outcomes) if outcomes else None)
        unverifiable = r.get("unverifiable", 1 - len(known) / len(outcomes) if outcomes else None)
        tokens = sum(report.tokens for report in reports)
        speed = tokens / max(1e-9, max((report.seconds for report in reports), default=1.0))
        chances, rates = curriculum.probabilities(), curriculum.solve_rates()
        history = self.status.history
        if reward is not None and length is not None:
            history = (*history[-_HISTORY:], (self.elapsed(), reward, length))
        self._set(
            rounds=number + 1,
            version=max([report.version for report in reports], default=self.status.version) + 1,
            tokens_per_s=speed,
            reward=reward,
            length=length,
            loss=r.get("loss", r.get("nll")),
            entropy=r.get("entropy"),
            mixed_groups=r.get("mixed_groups"),
            kl_to_start=r.get("kl_to_start"),
            clip_share=r.get("clip_share"),
            unverifiable=unverifiable,
            staleness=float(stale),
            history=history,
            levels=tuple((level, rates[level], chances[level]) for level in chances),
        )
        example = next((s.answer for s in self.status.samples if s.reward is None or s.reward <= 0), "")
        stalled = self._stall.look(outcomes, r.get("loss", r.get("nll")), example)
        if stalled is not None:
            self.message(stalled)
        scalars = {f"learner/{name}": value for name, value in r.items()}
        plain = {"reward": reward, "length": length, "unverifiable": unverifiable}
        scalars |= {f"samples/{name}": value for name, value in plain.items() if value is not None}
        scalars |= {f"samples/{kind}": share for kind, _, share in self.status.failures}
        scalars |= {
            "samples/tokens_per_s": speed,
            "samples/staleness": float(stale),
            "policy/version": self.status.version,
            "run/rounds": number + 1,
            "run/elapsed_s": self.elapsed(),
        }
        scalars |= {f"curriculum/solve_rate_{level:g}": rates[level] for level in rates}
        weight = proportional_bytes() if number % 10 == 0 else None
        if weight is not None:
            scalars["run/memory_gib"] = weight / 2**30
        self._write(scalars)

    def frontier(self, level: float, rate: float) -> None:
        """Expert iteration: the solve rate at the frontier, on the development split."""
        self._set(frontier=level)
        self._write({"expert/frontier": level, "expert/solve_rate": rate})

    def developed(self, outcomes: Sequence[Outcome]) -> float:
        """Problems of the development split were answered; returns the accuracy."""
        accuracy = _score(self.status.version, None, outcomes, self.elapsed()).accuracy
        self._set(development=accuracy)
        self._write({"development/all": accuracy, "run/elapsed_s": self.elapsed()})
        return accuracy

    def examined(self, version: int, levels: Sequence[float], outcomes: Sequence[Outcome]) -> None:
        """Held-out answers were judged."""
        found = [_score(version, None, outcomes, self.elapsed())]
        if len(levels) > 1:
            found += [
                _score(version, level, [o for o in outcomes if o.difficulty == level], self.elapsed())
                for level in levels
            ]
        self._scores += [score for score in found if score.problems]
        self._scores = thinned(self._scores, lambda score: None, lambda score: score.version)
        self._tell_scores()
        scalars = {f"held_out/{'all' if s.level is None else f'{s.level:g}'}": s.accuracy for s in found if s.problems}
        self._write({**scalars, "held_out/tokens": found[0].tokens, "run/elapsed_s": self.elapsed()})
        self._scalars.samples(
            self.status.episodes,
            [(s.prompt, s.answer, s.reward, s.reason, s.difficulty, s.episode_id) for s in self.status.samples],
        )

    def _tell_failures(self) -> None:
        asked = max(1, self._asked)
        kinds = [kind for kind in (*FAILURES, OTHER) if self._failures[kind]]
        self._set(failures=tuple((kind, self._failures[kind], self._newest[kind] / asked) for kind in kinds))

    def _tell_scores(self) -> None:
        whole = [score for score in self._scores if score.level is None]
        if whole:
            newest = [score for score in self._scores if score.version == whole[-1].version]
            first = [score for score in self._scores if score.version == whole[0].version]
            self._set(
                scores=tuple(newest[-len(first) :]),
                first_scores=tuple(first),
                score_history=tuple(whole[-_HISTORY:]),
                version=max(self.status.version, whole[-1].version),
            )

    def draining(self) -> None:
        self._ended = time.monotonic()
        self._set(phase="draining", activity="finishing the round under way")
        self._tell(self.status)

    # -- telling ------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Tells the present status, a few times a second."""
        if time.monotonic() - self._shown >= _SHOW_S:
            self._shown = time.monotonic()
            since = time.monotonic() - self._active_since
            self._set(elapsed_s=self.elapsed(), activity_s=since, busy=self._busy.now())
            self._tell(self.status)

    def summary(self, ended_by: Literal["time", "rounds", "target", "interrupted"]) -> ReasoningSummary:
        """The last word, told once more as a status."""
        self._set(phase="finished", activity="", elapsed_s=self.elapsed())
        self._tell(self.status)
        return ReasoningSummary(self._folder.run_id, ended_by, self.status)

    def close(self) -> None:
        self._scalars.close()

    def _write(self, scalars: dict[str, float]) -> None:
        self._scalars.write(self.status.episodes, scalars)

    def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)


def _score(version: int, level: float | None, outcomes: Sequence[Outcome], elapsed_s: float) -> Score:
    """Unverifiable answers count neither way."""
    judged = [outcome for outcome in outcomes if outcome.state != "unverifiable"]
    n, right = len(judged), sum(outcome.state == "accepted" for outcome in judged)
    low, high = wilson(right, n)
    tokens = sum(outcome.tokens for outcome in outcomes) / max(1, len(outcomes))
    return Score(version, level, right / max(1, n), low, high, n, tokens, elapsed_s)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    share, spread = right / of, _Z * _Z / of
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
