"""AlphaZero's loop: play, archive, learn, publish, measure. Read it from top to bottom.

Silver et al. 2018 (arXiv:1712.01815) with the search of Danihelka et al. 2022. What differs from the papers: playing
and learning go on at the same time, in processes of their own; a learner sees only what the archive has acknowledged;
and training is paced by the number of archived positions, so that the loop is the same on two cores and on a cluster.

    players ──(report, episodes)──> driver ──block──> archivist ──receipt──> driver ──(receipt, episodes)──> student
       ^                                                                                                       │
       └──────────── weights n+1 ──── weight server <──────────────────── publish ─────────────────────────────┘

The driver owns every actor; its death ends them, and the next driver goes on from checkpoint and archive. Who plays,
and on how many cores, is `trainers.run.supervisor`'s business; where, `trainers.run.placement`'s.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError

from selfplay.actors.player import Report
from selfplay.errors import UserError
from selfplay.store import Receipt
from trainers.alphazero.actors import Crew
from trainers.alphazero.config import RunConfig
from trainers.alphazero.evaluation import Exams
from trainers.alphazero.scoreboard import Scoreboard
from trainers.alphazero.state import State
from trainers.alphazero.status import Summary
from trainers.alphazero.status_tracker import Watch
from trainers.run.event_log import note
from trainers.run.failure_causes import cause_of, in_words
from trainers.run.restore import Restored
from trainers.run.run_folder import RunFolder
from trainers.run.supervisor import Arrivals, Roster

if TYPE_CHECKING:
    from trainers.alphazero.learner_actor import Progress
    from trainers.run.weights_lineage import Issue

#: Longest call of a player; it looks for new weights between calls.
_PLAY_S = 4.0
#: A call of the learner takes about as long, if a step does not take longer.
_LEARN_S = 4.0
#: Most blocks a second of the whole run: with very many players each writes larger ones. Every block is a file, and
#: what holds a file for every few games would soon be read by nobody.
_BLOCKS_PER_S = 20.0
#: A learner that dies this often in a row, without one good call between, ends the run.
_MOST_DEATHS = 3
#: On a cluster nobody waits longer than this for what a player still has: its node may be gone.
_LEAVE_S = 30.0
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
        self.roster = Roster(crew.player, crew.players_wanted)
        self.arrivals = Arrivals(watch.message)
        self.playing: dict[Any, tuple[str, Any]] = {}  # report ref -> (slot, episodes ref)
        self.asked_to_write: dict[str, float] = {}  # slot -> when
        self.rests_since: dict[str, float] = {}  # slot -> when its last call has returned
        self.in_flight: dict[str, tuple[int, int]] = {}
        self.learner_deaths = 0  # in a row
        self.committing: tuple[Any, list[Any]] | None = None  # (receipts ref, episodes refs)
        self.written: deque[tuple[Report, Any]] = deque()
        self.oldest: float | None = None  # when the oldest uncommitted block was written
        self.archived = -1  # version of the episodes table that holds every receipt so far
        self.lessons: list[tuple[Receipt, Any]] = []
        self.lesson_rows = 0
        self.taken_rows = 0  # of lessons that the learner is just taking in
        self.last_report: Report | None = None
        self.studying: Any = None
        self.restoring: Any = None  # what a new learner goes on from, until that is known
        self.progress: Progress | None = None
        self.published_samples = 0
        self.pace = 0.0  # samples a second of the learner's last call
        self.student: Any = None
        self.exams = Exams(crew, self.board, watch)
        self.checkpointed = time.monotonic()
        self.saved = 0.0
        self.closing = False

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
            self.exams.final(self.state.version, self.stop, lambda: self.watch.show(self.progress, self.board))
            self.save()
        self.crew.close(interrupted)
        return self.watch.summary(self.progress, self.board, interrupted)

    def begin(self) -> None:
        """Starts archive and players; the others follow when a first game is there to be seen."""
        self.watch.activity("starting the players")
        self.archived = self.crew.open_archive(self.crew.about_agent())
        self.watch.count_archived()
        self.crew.publish_kept(self.crew.first_weights)
        self.folder.tell_damage(self.watch.message)
        if self.stop.is_set():
            return
        self.hire()
        if not self.config.run.deterministic:
            self.launch_idle()
        self.watch.activity("waiting for the first game")
        if self.config.run.deterministic:
            self.hire_others()
            self.studied()

    def hire_others(self) -> None:
        """Starts learner and examiner: they take long to load, and would take the players' cores before a game."""
        self.hire_student()
        self.exams.open()

    def hire_student(self) -> None:
        """A learner that goes on from the newest checkpoint and the archive."""
        self.student = self.crew.student()
        self.restoring = self.student.restore.remote(self.folder.checkpoints())
        self.studying = self.student.resume.remote(self.archived)

    def over(self) -> bool:
        return self.watch.share_done() >= 1.0

    def step(self) -> None:
        """One look at everything that may have finished."""
        waiting = [*self.playing]
        others = (self.studying, self.committing and self.committing[0], self.exams.ref)
        waiting += [ref for ref in others if ref is not None]
        if not waiting:
            time.sleep(0.1)
        ready, _ = ray.wait(waiting, timeout=0.1) if waiting else ([], [])  # nobody idles until the others are done
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else ([], [])
        for ref in ready:
            if ref in self.playing:
                self.played(ref)
        if self.committing and self.committing[0] in ready:
            self.committed()
        if self.studying in ready:
            self.studied()
        if self.exams.ref in ready and self.exams.done():
            self.save()
        self.commit()
        self.study()
        if self.crew.sizing.joined or len(self.roster.players) < self.crew.sizing.players:
            self.hire(at_once=False)
        self.arrivals.look(self.roster.players)
        self.launch_idle()
        self.exams.begin(self.state.version, self.crew.kept_versions())
        lag = time.monotonic() - self.oldest if self.oldest else 0.0
        blocks = len(self.written) + len(self.committing[1] if self.committing else ())
        self.watch.waiting(self.arrivals.known(self.roster.players), blocks, lag, self.owed())

    def turn(self) -> None:
        """The deterministic loop: all play, all is archived, all that is owed is learned; each in a fixed order."""
        self.hire()
        for slot in self.roster.players:
            self.launch(slot)
        for ref in list(self.playing):
            self.played(ref)
        self.settle_archive()
        while self.lessons or self.owes():
            self.study()
            if self.studying is None:
                break
            self.studied()
        self.watch.waiting(self.roster.players, 0, 0.0, self.owed())
        self.exams.begin(self.state.version, self.crew.kept_versions())
        if self.exams.ref and ray.wait([self.exams.ref], timeout=0)[0] and self.exams.done():
            self.save()

    # -- playing ------------------------------------------------------------------------------------------------

    def hire(self, at_once: bool = True) -> None:
        """Players for free slots; see `Roster.fill`."""
        hired = self.roster.fill(at_once)
        self.in_flight |= dict.fromkeys(hired, (0, 0))
        for slot in hired:
            self.arrivals.expect(slot, self.roster.players[slot])
        if hired and self.watch.began and not at_once:
            self.watch.message(f"{len(hired)} more to play: {len(self.roster.players)} players now")

    def launch(self, slot: str) -> None:
        decisions = self.config.selfplay.refresh_moves * self.config.selfplay.games
        seconds = None if self.config.run.deterministic else _PLAY_S
        enough = None if seconds is None or self.watch.began else 1  # a person waits for the first game
        now, wait = time.monotonic(), len(self.roster.players) / _BLOCKS_PER_S
        write = seconds is None or enough is not None or now - self.asked_to_write.get(slot, 0.0) >= wait
        if write:
            self.asked_to_write[slot] = now
        newest = self.crew.newest
        report, episodes = self.roster.players[slot].play.remote(decisions, seconds, enough, write, newest)
        self.playing[report] = (slot, episodes)

    def launch_idle(self) -> None:
        """Sends those to play that wait, who has waited longest first, as far as there is need of them."""
        busy = {slot for slot, _ in self.playing.values()}
        idle = [slot for slot in self.roster.players if slot not in busy]
        room = self.needed() - len(busy)
        for slot in sorted(idle, key=lambda slot: self.rests_since.get(slot, 0.0))[: max(0, room)]:
            self.launch(slot)

    def needed(self) -> int:
        """Back-pressure: how many may play. All, until the learner is half as far behind as it may be; then ever fewer.

        So players and learner share the cores without waiting for each other: where the learner is the slower part, it
        has the cores of those that wait (`learner_threads`), and a player more or less keeps the balance.
        """
        players = len(self.roster.players)
        if len(self.written) > 4 * players:  # the archive lags
            return 0
        c = self.config.learner
        limit, behind = max(float(c.publish_every_samples), 4.0 * c.batch), self.owed()
        if self.progress is None or self.progress.positions < c.window_initial:
            behind -= c.samples_per_position * c.window_initial  # to be filled first, by all
        return max(0, min(players, math.ceil(players * (limit - behind) / (0.5 * limit))))

    def played(self, ref: Any) -> None:
        slot, episodes = self.playing.pop(ref)
        self.rests_since[slot] = time.monotonic()
        try:
            report: Report = ray.get(ref)
        except (RayActorError, ObjectLostError) as error:
            self.bury(slot, error)
            return
        self.roster.works(slot)
        self.arrivals.have(slot)
        self.in_flight[slot] = report.in_flight
        self.last_report = report
        self.watch.playing(report)
        self.watch.played(slot, report)
        if report.block is not None:
            self.written.append((report, episodes))
            self.oldest = self.oldest or time.monotonic()
        if report.leaving and not self.closing:
            self.leave(slot)
        if self.student is None and not self.stop.is_set():
            self.hire_others()

    def leave(self, slot: str) -> None:
        """A player's node has been given notice, and what it played is sealed: another takes its place elsewhere."""
        self.settle_archive()
        ray.kill(self.roster.leave(slot))
        self.watch.message(f"player {slot} leaves a node that has been given notice; its games are archived")
        self.hire()

    def bury(self, slot: str, error: RayError) -> None:
        """A player died: its games are lost and counted, and another takes its place under a new epoch."""
        note(self.folder.run_id, "died", who=f"player {slot}", why=in_words(error))
        ray.kill(self.roster.players[slot])  # one that is only cut off would go on for nothing
        games = self.count_lost(slot)
        if self.roster.lost(slot, error):
            self.watch.message(f"player {slot} died with {games} games in flight; another goes on")
        else:
            self.watch.message(f"player {slot} died again and again and is left out; the others go on")
        self.settle_archive()  # what it wrote belongs to its epoch: commit before the next epoch is registered
        if not self.closing:
            self.hire()

    def count_lost(self, slot: str) -> int:
        """Games of a player that is gone are lost; how many."""
        games, plies = self.in_flight.pop(slot)
        self.state.lost_games += games
        self.state.lost_plies += plies
        return games

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
        self.oldest = time.monotonic() if self.written else None
        for receipt, (report, episodes) in zip(ray.get(receipts_ref), taken, strict=True):
            self.watch.archived(report)
            assert report.block is not None
            self.crew.archived(report.block, receipt)
            self.archived = max(self.archived, receipt.table_version)
            self.lessons.append((receipt, [episodes]))
            self.lesson_rows += report.archived_decisions
        self.crew.tidier.archived(len(taken))
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
        if self.progress.samples - self.published_samples >= self.config.learner.publish_every_samples:
            self.publish()
        if time.monotonic() - self.checkpointed >= self.config.run.checkpoint_every_s:
            self.checkpoint()
        if self.lessons:
            self.take()
        elif self.owes():
            self.studying = self.student.train.remote(self.chunk(), self.learning_rate(), self.learner_threads())

    def chunk(self) -> int:
        """Samples for one call of the learner: so few that a slow one is heard of every few seconds, too."""
        c = self.config.learner
        most = max(c.batch, min(c.publish_every_samples // 4, 16 * c.batch))
        return most if self.config.run.deterministic else max(c.batch, min(most, int(self.pace * _LEARN_S)))

    def learner_threads(self) -> int | None:
        """Of the learner's next call: those of the cores here on which nobody plays; None: as many as it has."""
        sizing, asked = self.crew.sizing, self.config.learner.threads
        if asked != "auto" or sizing.joined or self.config.run.deterministic or self.config.learner.learners > 1:
            return None
        return max(self.crew.learner_threads or 1, sizing.cores - len(self.playing))

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
            self.learner_died(error)
            self.watch.message("the learner died; another goes on from the last checkpoint")
            self.lessons, self.lesson_rows = [], 0  # the new one finds them in the archive
            self.hire_student()
            return
        self.watch.worked("learner", self.progress.spent)
        if self.restoring is not None:
            self.restored(ray.get(self.restoring))
        if before is not None and self.progress.samples > before.samples:
            self.learner_deaths = 0
            self.watch.chosen("training", self.progress.training.name, str(self.progress.training))
            self.pace = (self.progress.samples - before.samples) / self.progress.losses["seconds"]
        if before is None or before.samples > self.progress.samples:
            self.published_samples = self.progress.samples

    def restored(self, found: Restored) -> None:
        """Notes which checkpoint the learner went on from, and says so where it is not the newest."""
        self.restoring = None
        self.state.checkpoint = found.checkpoint
        self.folder.pass_over(found.damaged, found.place or "a new learner, which learns from the archive")
        self.folder.tell_damage(self.watch.message)

    def learner_died(self, error: RayActorError) -> None:
        """Counts a death; one too many in a row ends the run."""
        note(self.folder.run_id, "died", who="the learner", why=in_words(error))
        ray.kill(self.student)
        cause = cause_of(error)
        if isinstance(cause, UserError):  # it could not begin, and another could not either
            raise cause from None
        self.learner_deaths += 1
        if self.learner_deaths >= _MOST_DEATHS:
            raise UserError(f"the learner died {_MOST_DEATHS} times in a row; the newest file in logs/ says why")

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
        issue_ref, tensors = self.student.publish.remote(self.state.version + 1)
        try:
            issue: Issue = ray.get(issue_ref)
        except RayActorError:
            return
        version, digest, progress = issue.version, issue.digest, self.progress
        self.crew.enter_policy(version, digest, issue.parent_digest, progress.step, progress.samples)
        self.crew.enter_use(issue, self.archived)
        self.crew.publish(version, digest, tensors)
        self.state.version, self.state.digest = version, digest
        self.published_samples = self.progress.samples
        self.watch.published(self.progress, version, self.last_report)

    def checkpoint(self) -> None:
        assert self.progress is not None
        name = f"{self.crew.epoch:06d}-{self.progress.step:09d}.safetensors"
        self.checkpointed = time.monotonic()
        before, self.state.checkpoint = self.state.checkpoint, name
        self.note_counts()
        try:
            ray.get(self.student.checkpoint.remote(name, asdict(self.state)))
        except RayActorError:
            self.state.checkpoint = before
            return
        self.save()
        self.crew.forget_old()

    def save(self) -> None:
        """Writes down what the run remembers, so that the next driver goes on from here."""
        self.note_counts()
        self.folder.save()

    def note_counts(self) -> None:
        """Puts what is counted into the state, to be saved."""
        self.saved = time.monotonic()
        self.state.games_in_flight = sum(games for games, _ in self.in_flight.values())
        self.state.plies_in_flight = sum(plies for _, plies in self.in_flight.values())
        self.watch.note_clock()

    # -- the end ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Seals what is being played, archives and learns of it, publishes the last net, saves everything."""
        self.watch.draining()
        self.closing = True
        self.bring_in()
        for slot, player in self.roster.players.items():
            report, episodes = player.finish.remote()
            self.playing[report] = (slot, episodes)
        self.bring_in()
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

    def bring_in(self) -> None:
        """Takes what the players are bringing, of whoever has found a core; on a cluster only for a time."""
        until = time.monotonic() + _LEAVE_S
        for ref, (slot, _) in list(self.playing.items()):
            began = self.arrivals.have(slot)
            if not began or (self.crew.sizing.joined and not self.ready_by(ref, until)):
                del self.playing[ref]
                ray.kill(self.roster.players.pop(slot))
                games = self.count_lost(slot)
                if began:
                    self.watch.message(f"player {slot} did not answer; its {games} games in flight are lost")
            else:
                self.watch.show(self.progress, self.board)
                self.played(ref)

    def ready_by(self, ref: Any, until: float) -> bool:
        """Whether an answer has come by then."""
        return bool(ray.wait([ref], timeout=max(0.0, until - time.monotonic()))[0])
