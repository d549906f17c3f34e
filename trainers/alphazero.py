"""AlphaZero's loop: play, archive, learn, publish, measure. Read it from top to bottom.

Silver et al. 2018 (arXiv:1712.01815) with the search of Danihelka et al. 2022. What differs from the papers: playing
and learning go on at the same time, in processes of their own; a learner sees only what the archive has acknowledged;
and training is paced by the number of archived positions, so that the loop is the same on two cores and on a cluster.

    players ──(report, episodes)──> driver ──block──> archivist ──receipt──> driver ──(receipt, episodes)──> student
       ^                                                                                                       │
       └──────────── weights n+1 ──── weight server <──────────────────── publish ─────────────────────────────┘

The driver owns every actor; its death ends them, and the next driver goes on from checkpoint and archive.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

from selfplay.actors.examiner import Marks
from selfplay.actors.player import Report
from selfplay.errors import UserError
from selfplay.store import Receipt
from trainers.cluster import told
from trainers.config import RunConfig
from trainers.crew import Crew
from trainers.run_folder import RunFolder, State
from trainers.scoreboard import Scoreboard
from trainers.status import Summary
from trainers.watch import Watch

if TYPE_CHECKING:
    from trainers.student import Issue, Progress

#: Longest call of a player; it looks for new weights between calls.
_PLAY_S = 4.0
#: An actor that dies this often in a row, without one good call between, is given up.
_MOST_DEATHS = 3
_FINAL_EXAMS_S = 20.0
#: What is counted is written down this often, where games were archived meanwhile.
_SAVE_S = 5.0


class Loop:
    """One driver's part of a run, from the first actor to the last word; `run` is all that others call."""

    def __init__(
        self, config: RunConfig, folder: RunFolder[State], crew: Crew, watch: Watch, stop: threading.Event
    ) -> None:
        self.config, self.folder, self.crew, self.watch, self.stop = config, folder, crew, watch, stop
        self.state = folder.state
        self.board = Scoreboard(config.evaluation, self.state, crew.game.spec.exact is not None, crew.sizing.cores)
        self.players: dict[str, Any] = {}
        self.playing: dict[Any, tuple[str, Any]] = {}  # report ref -> (slot, episodes ref)
        self.in_flight: dict[str, tuple[int, int]] = {}
        self.deaths: Counter[str] = Counter()  # in a row, of each actor
        self.committing: tuple[Any, list[Any]] | None = None  # (receipts ref, episodes refs)
        self.written: deque[tuple[Report, Any]] = deque()
        self.archived = -1  # version of the episodes table that holds every receipt so far
        self.lessons: list[tuple[Receipt, Any]] = []
        self.lesson_rows = 0
        self.taken_rows = 0  # of lessons that the learner is just taking in
        self.last_report: Report | None = None
        self.studying: Any = None
        self.progress: Progress | None = None
        self.published_samples = 0
        self.student: Any = None
        self.examiner: Any = None
        self.exam: tuple[Any, float] | None = None
        self.checkpointed = time.monotonic()
        self.saved = 0.0

    # -- the whole run ------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        self.begin()
        while not self.stop.is_set() and not self.over():
            if self.config.run.deterministic:
                self.turn()
            else:
                self.step()
            self.watch.show(self.progress, self.board)
        interrupted = not self.over()
        self.drain()
        if not interrupted:
            self.final_exams()
        return self.watch.summary(self.progress, self.board, interrupted)

    def begin(self) -> None:
        """Starts archive and players; the others follow when a first game is there to be seen."""
        self.watch.activity("starting the players")
        self.archived = self.crew.open_archive(self.crew.about_agent())
        self.folder.save()
        self.watch.count_archived()
        if not self.crew.kept_versions():
            self.crew.publish_first(self.crew.first_weights())
        else:
            self.crew.publish_kept()
        if self.stop.is_set():
            return
        for number in range(self.crew.sizing.players):
            self.hire(f"p{number:04d}")
        if not self.config.run.deterministic:
            for slot in self.players:
                self.launch(slot)
        self.watch.activity("waiting for the first game")
        if self.config.run.deterministic:
            self.hire_others()
            self.studied()

    def hire_others(self) -> None:
        """Starts learner and examiner: they take long to load, and would take the players' cores before a game."""
        self.student = self.crew.student()
        self.studying = self.student.resume.remote(self.checkpoint_uri(), self.archived)
        if self.config.evaluation.opponents or self.config.evaluation.exact_positions:
            self.examiner = self.crew.examiner()

    def over(self) -> bool:
        return self.watch.share_done() >= 1.0

    def step(self) -> None:
        """One look at everything that may have finished."""
        waiting = [*self.playing]
        waiting += [ref for ref in (self.studying, self.committing and self.committing[0]) if ref is not None]
        waiting += [self.exam[0]] if self.exam else []
        ready, _ = ray.wait(waiting, timeout=0.1) if waiting else ([], [])  # nobody idles until the others are done
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else ([], [])
        for ref in ready:
            if ref in self.playing:
                self.played(ref)
        if self.committing and self.committing[0] in ready:
            self.committed()
        if self.studying in ready:
            self.studied()
        if self.exam and self.exam[0] in ready:
            self.examined()
        self.commit()
        self.study()
        self.launch_idle()
        self.begin_exam()

    def turn(self) -> None:
        """The deterministic loop: all play, all is archived, all that is owed is learned; each in a fixed order."""
        for slot in self.players:
            self.launch(slot)
        for ref in list(self.playing):
            self.played(ref)
        self.settle_archive()
        while self.lessons or self.owes():
            self.study()
            if self.studying is None:
                break
            self.studied()
        self.begin_exam()
        if self.exam and ray.wait([self.exam[0]], timeout=0)[0]:
            self.examined()

    # -- playing ------------------------------------------------------------------------------------------------

    def hire(self, slot: str) -> None:
        self.players[slot] = self.crew.player(slot)
        self.in_flight[slot] = (0, 0)

    def launch(self, slot: str) -> None:
        decisions = self.config.selfplay.refresh_moves * self.config.selfplay.games
        seconds = None if self.config.run.deterministic else _PLAY_S
        enough = None if seconds is None or self.watch.began else 1  # a person waits for the first game
        report, episodes = self.players[slot].play.remote(decisions, seconds, enough)
        self.playing[report] = (slot, episodes)

    def launch_idle(self) -> None:
        """Back-pressure: nobody plays on while the learner owes too much or the archive lags."""
        busy = {slot for slot, _ in self.playing.values()}
        c = self.config.learner
        limit = max(float(c.publish_every_samples), 4.0 * c.batch)
        if self.progress is None or self.progress.positions < c.window_initial:
            limit += c.samples_per_position * c.window_initial
        if self.owed() > limit or len(self.written) > 4 * len(self.players):
            return
        for slot in self.players:
            if slot not in busy:
                self.launch(slot)

    def played(self, ref: Any) -> None:
        slot, episodes = self.playing.pop(ref)
        try:
            report: Report = ray.get(ref)
        except RayActorError as error:
            self.bury(slot, error)
            return
        del self.deaths[slot]
        self.in_flight[slot] = report.in_flight
        self.last_report = report
        self.watch.playing(report)
        self.watch.played(report)
        if report.block is not None:
            self.written.append((report, episodes))
        if self.student is None and not self.stop.is_set():
            self.hire_others()

    def bury(self, slot: str, error: RayActorError) -> None:
        """A player died: its games are lost and counted, and another takes its place under a new epoch."""
        games, plies = self.in_flight[slot]
        self.state.lost_games += games
        self.state.lost_plies += plies
        self.died(f"player {slot}", slot, error)
        self.watch.message(f"player {slot} died with {games} games in flight; another goes on")
        self.settle_archive()  # what it wrote belongs to its epoch: commit before the next epoch is registered
        self.hire(slot)

    def died(self, who: str, key: str, error: RayActorError) -> None:
        """Counts a death; one too many in a row ends the run."""
        print(f"{who} died: {error}", flush=True)  # to the log
        cause = told(error)
        if isinstance(cause, UserError):  # it could not begin, and another could not either
            raise cause from None
        self.deaths[key] += 1
        if self.deaths[key] >= _MOST_DEATHS:
            raise UserError(f"{who} died {_MOST_DEATHS} times in a row; the newest file in logs/ holds its last words")

    # -- archiving ----------------------------------------------------------------------------------------------

    def commit(self) -> None:
        if self.committing is None and self.written:
            taken = list(self.written)
            self.written.clear()
            receipts = self.crew.archivist.commit.remote([report.block for report, _ in taken])
            self.committing = (receipts, [(report, episodes) for report, episodes in taken])

    def committed(self) -> None:
        assert self.committing is not None
        (receipts_ref, taken), self.committing = self.committing, None
        for receipt, (report, episodes) in zip(ray.get(receipts_ref), taken, strict=True):
            self.watch.archived(report)
            self.archived = max(self.archived, receipt.table_version)
            self.lessons.append((receipt, [episodes]))
            self.lesson_rows += report.archived_decisions
        if time.monotonic() - self.saved >= _SAVE_S:
            self.save()

    def settle_archive(self) -> None:
        """Waits until everything written is committed."""
        while self.committing or self.written:
            self.commit()
            self.committed()

    # -- learning -----------------------------------------------------------------------------------------------

    def owed(self) -> float:
        """Samples that the archived positions still owe, those on their way to the learner included."""
        rate = self.config.learner.samples_per_position
        return (self.progress.debt if self.progress else 0.0) + rate * (self.lesson_rows + self.taken_rows)

    def owes(self) -> bool:
        progress = self.progress
        if progress is None or progress.positions < self.config.learner.window_initial:
            return False
        return progress.debt >= self.config.learner.batch

    def study(self) -> None:
        """Gives the idle learner its next task: take archived games in, publish, save, or train."""
        if self.studying is not None or self.progress is None:
            return
        c = self.config.learner
        if self.progress.samples - self.published_samples >= c.publish_every_samples:
            self.publish()
        if time.monotonic() - self.checkpointed >= self.config.run.checkpoint_every_s:
            self.checkpoint()
        if self.lessons:
            self.take()
        elif self.owes():
            chunk = max(c.batch, min(c.publish_every_samples // 4, 16 * c.batch))
            self.studying = self.student.train.remote(chunk, self.learning_rate())

    def take(self) -> None:
        """Has the idle learner take in what was archived."""
        self.studying = self.student.take.remote(self.lessons)
        self.taken_rows = self.lesson_rows
        self.lessons, self.lesson_rows = [], 0

    def studied(self) -> None:
        ref, self.studying = self.studying, None
        self.taken_rows = 0
        try:
            before, self.progress = self.progress, ray.get(ref)
        except RayActorError as error:
            self.died("the learner", "learner", error)
            self.watch.message("the learner died; another goes on from the last checkpoint")
            self.lessons, self.lesson_rows = [], 0  # the new one finds them in the archive
            self.student = self.crew.student()
            self.studying = self.student.resume.remote(self.checkpoint_uri(), self.archived)
            return
        if before is not None and self.progress.samples > before.samples:
            del self.deaths["learner"]
        if before is None or before.samples > self.progress.samples:
            self.published_samples = self.progress.samples

    def learning_rate(self) -> float:
        """Constant, then falling linearly to `lr_final` at the end; constant where only the clock says when that is."""
        c = self.config.learner
        if self.config.run.deterministic and self.config.run.positions is None:
            return c.lr
        late = (self.watch.share_done() - c.lr_decay_from) / max(1e-9, 1.0 - c.lr_decay_from)
        return c.lr + (c.lr_final - c.lr) * min(1.0, max(0.0, late))

    def publish(self) -> None:
        """Weights n + 1: written, entered in the policies table, then handed out."""
        assert self.progress is not None
        version = self.state.version + 1
        issue_ref, tensors = self.student.publish.remote(version)
        try:
            issue: Issue = ray.get(issue_ref)
        except RayActorError:
            return
        digest = issue.digest
        progress = self.progress
        self.crew.enter_policy(version, digest, self.state.digest, progress.step, progress.samples)
        self.crew.enter_use(version, issue, self.state.version, self.state.digest, self.archived)
        self.crew.publish(version, digest, tensors)
        self.state.version, self.state.digest = version, digest
        self.published_samples = self.progress.samples
        self.watch.published(self.progress, version, self.last_report)

    def checkpoint(self) -> None:
        assert self.progress is not None
        name = f"{self.crew.epoch:06d}-{self.progress.step:09d}.safetensors"
        self.checkpointed = time.monotonic()
        try:
            ray.get(self.student.checkpoint.remote(name))
        except RayActorError:
            return
        self.state.checkpoint = name
        self.save()
        self.crew.forget_old()

    def save(self) -> None:
        """Writes down what the run remembers, so that the next driver goes on from here."""
        self.saved = time.monotonic()
        self.state.games_in_flight = sum(games for games, _ in self.in_flight.values())
        self.state.plies_in_flight = sum(plies for _, plies in self.in_flight.values())
        self.watch.note_clock()
        self.folder.save()

    def checkpoint_uri(self) -> str | None:
        return self.folder.checkpoint_uri(self.state.checkpoint) if self.state.checkpoint else None

    # -- measuring ----------------------------------------------------------------------------------------------

    def begin_exam(self) -> None:
        if self.exam is None and self.examiner is not None and self.watch.began:
            exam = self.board.next(self.state.version, self.crew.kept_versions())
            if exam is not None:
                self.board.begun()
                self.exam = (self.examiner.examine.remote(exam), time.monotonic())

    def examined(self) -> None:
        assert self.exam is not None
        (ref, began), self.exam = self.exam, None
        try:
            marks: Marks = ray.get(ref)
        except RayActorError as error:
            self.died("the examiner", "examiner", error)
            self.watch.message("the examiner died; another goes on")
            self.examiner = self.crew.examiner()
            self.board.failed()
            return
        except UserError:  # the version's weights were deleted meanwhile
            self.board.failed()
            return
        del self.deaths["examiner"]
        self.board.record(marks, self.watch.elapsed(), time.monotonic() - began)
        self.watch.examined(marks, self.board)
        self.save()

    def final_exams(self) -> None:
        """Measures the last net at full length, for as long as a person will wait."""
        if self.examiner is None:
            return
        until = time.monotonic() + _FINAL_EXAMS_S
        self.watch.activity("measuring the last net")
        exams = self.board.final(self.state.version)
        while (self.exam or exams) and time.monotonic() < until and not self.stop.is_set():
            if self.exam is None:
                self.exam = (self.examiner.examine.remote(exams.pop(0)), time.monotonic())
            if ray.wait([self.exam[0]], timeout=0.2)[0]:
                self.examined()
            self.watch.show(self.progress, self.board)
        self.save()

    # -- the end ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Seals what is being played, archives and learns of it, publishes the last net, saves everything."""
        self.watch.draining()
        for ref in list(self.playing):
            self.watch.show(self.progress, self.board)
            self.played(ref)
        ends = {}
        for slot, player in self.players.items():
            report, episodes = player.finish.remote()
            ends[report] = (slot, episodes)
        self.playing = ends
        for ref in list(ends):
            self.played(ref)
        self.settle_archive()
        if self.progress is None and self.stop.is_set():  # the learner is still loading: the archive has everything
            self.save()
            return
        while self.studying is not None or self.lessons:
            if self.studying is None:
                self.take()
            self.studied()
        assert self.progress is not None
        if self.progress.samples > self.published_samples:
            self.publish()
        self.checkpoint()
