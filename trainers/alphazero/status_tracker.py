"""Keeps the clock and the counts of a run, and tells them: to the screen, to TensorBoard and to wandb."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from selfplay import store
from selfplay.actors.examiner import Marks
from selfplay.actors.player import Report
from selfplay.contract import GameSpec
from selfplay.store.table import counts
from trainers.alphazero.config import RunConfig
from trainers.alphazero.scoreboard import Scoreboard
from trainers.alphazero.stalls import GamesStall, first_games, nothing_finished
from trainers.alphazero.state import State
from trainers.alphazero.status import Candidate, LastGame, LostGames, Status, Summary
from trainers.run.event_log import note
from trainers.run.metrics import ScalarWriter
from trainers.run.process_memory import proportional_bytes
from trainers.run.run_folder import RunFolder
from trainers.run.throughput import Busy, Speed, Spent

if TYPE_CHECKING:
    from trainers.alphazero.learner_actor import Progress

_SHOW_S = 0.25


class Watch:
    """What a person sees of a run, kept up to date by the loop."""

    def __init__(
        self,
        config: RunConfig,
        spec: GameSpec,
        folder: RunFolder[State],
        sizing: str,
        cores: int,
        on_status: Callable[[Status], None],
    ) -> None:
        self._config, self._folder, self._tell = config, folder, on_status
        state, planned = folder.state, config.run.minutes * 60.0
        # A plan that was cut short is finished; after it (or with another length) a new one begins.
        unfinished = state.total_s == planned and state.elapsed_s < 0.98 * planned
        self._before = state.elapsed_s if unfinished else 0.0
        self._total = planned
        self._began: float | None = None
        self._ended: float | None = None
        self._speed = Speed()
        self._busy = Busy("players", "learner", "evaluation")
        self._versions: dict[str, int] = {}  # that players play with
        self._shown = 0.0
        self._active_since = time.monotonic()
        self._played_on = self._wrongly = 0
        self._losses: list[tuple[float, float]] = []
        self.status = Status(
            recipe=config.name,
            env=spec.id,
            out=folder.uri,
            corpus=folder.corpus,
            sizing=sizing,
            cores=cores,
            total_s=self._total,
            elapsed_s=self._before,
            lost=LostGames(state.lost_games, state.lost_plies),
        )
        self._under_way: dict[str, tuple[int, int]] = {}  # slot -> (games, moves) in flight
        self._stall = GamesStall(config.learner.window_initial)
        self._scalars = ScalarWriter.of_run(folder, config, self.message)

    # -- the clock ----------------------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether the first move was made; the clock runs since then."""
        return self._began is not None

    def elapsed(self) -> float:
        """Seconds of the present plan, those before an interruption included."""
        if self._began is None:
            return self._before
        return self._before + (self._ended or time.monotonic()) - self._began

    def share_done(self) -> float:
        """How much of the run is done, 0 to 1: of its positions where their number is set, else of its time."""
        positions = self._config.run.positions
        if positions is not None:
            return min(1.0, self.status.positions / positions)
        return min(1.0, self.elapsed() / self._total)

    def note_clock(self) -> None:
        """Puts the clock into the run's state, to be saved."""
        state = self._folder.state
        state.total_s, state.elapsed_s = self._total, self.elapsed()

    # -- events -------------------------------------------------------------------------------------------------

    def activity(self, text: str) -> None:
        """What goes on now."""
        self._active_since = time.monotonic()
        self._set(activity=text, activity_s=0.0)
        self._tell(self.status)

    def message(self, text: str) -> None:
        self._set(messages=(*self.status.messages[-4:], text))

    def count_archived(self) -> None:
        """Takes over what the run has archived before, as the log of the corpus counts it."""
        if not self._folder.new:
            before = counts.archived_by(store.open(self._folder.corpus), self._folder.run_id)
            self._set(episodes=before.episodes, positions=before.positions)

    def playing(self, report: Report) -> None:
        """Moves were made: the clock runs since the first of them."""
        if self._began is None:
            self._began = time.monotonic() - report.seconds
            self._set(phase="playing", activity="")

    def played(self, slot: str, report: Report) -> None:
        """A call of a player has returned. slot: the place that it has among the players."""
        self._speed.did(report.decisions, report.seconds)
        self.worked("players", Spent(report.seconds, report.cpu_s))
        self.chosen("inference", str(report.inference.way), str(report.inference))
        if report.showcase is not None:
            s = report.showcase
            candidates = tuple(Candidate(*row) for row in s.candidates)
            self._set(last_game=LastGame(s.board, s.caption, s.result, s.plies, candidates, s.episode_id))
        self._versions[slot] = report.version
        if self.status.phase == "playing":
            self._under_way[slot] = report.in_flight
            waits = not self.status.episodes and report.block is None
            self._set(activity=first_games(self._all_under_way()) if waits else "")
        state = self._folder.state
        self._set(lost=LostGames(state.lost_games, state.lost_plies))

    def worked(self, who: str, spent: Spent) -> None:
        """A call of "players", "learner" or "evaluation" has returned."""
        self._busy.did(who, spent)

    def chosen(self, what: str, way: str, how: str) -> None:
        """A way that was chosen for a machine by measuring it, and what it costs; each is told and noted once."""
        if way not in self.status.choices.get(what, {}):
            self._set(choices={**self.status.choices, what: {**self.status.choices.get(what, {}), way: how}})
            note(self._folder.run_id, "chosen", what=what, how=how)
            self.message(f"{what}: {how}")

    def _all_under_way(self) -> tuple[int, int]:
        return sum(games for games, _ in self._under_way.values()), sum(moves for _, moves in self._under_way.values())

    def waiting(self, players: Collection[str], blocks: int, oldest_s: float, owed: float) -> None:
        """Who plays, and what waits for archive and learner."""
        self._versions = {slot: version for slot, version in self._versions.items() if slot in players}
        behind = [float(self._folder.state.version - version) for version in self._versions.values()]
        self._set(
            players=len(players),
            staleness=max(behind, default=None),
            queued_blocks=blocks,
            archive_lag_s=oldest_s,
            owed_samples=owed,
        )

    def archived(self, report: Report) -> None:
        status = self.status
        self._played_on += report.resignable[0]
        self._wrongly += report.resignable[1]
        self._set(
            episodes=status.episodes + report.episodes, positions=status.positions + report.archived_decisions
        )

    def published(self, progress: Progress, version: int, report: Report | None) -> None:
        self._set(version=version)
        scalars = {f"learner/{name}": value for name, value in progress.losses.items()}
        scalars |= {
            "learner/window": progress.window_rows,
            "learner/debt": progress.debt,
            "selfplay/positions_per_s": self.status.positions_per_s,
            "selfplay/episodes": self.status.episodes,
            "policy/version": version,
            "run/elapsed_s": self.elapsed(),
            "run/cores_at_work": self.status.cores_at_work,
        }
        weight = proportional_bytes()
        if weight is not None:
            scalars["run/memory_gib"] = weight / 2**30
        if report is not None:
            scalars |= {
                "search/cache_hit_rate": report.hits / max(1, report.lookups),
                "search/batch": report.evaluations / max(1, report.batches),
            }
        if self._played_on:
            scalars["selfplay/resignation_false_positives"] = self._wrongly / self._played_on
        self._scalars.write(self.status.positions, scalars)

    def examined(self, marks: Marks, board: Scoreboard, seconds: float) -> None:
        exam = marks.exam
        self.worked("evaluation", Spent(seconds, marks.cpu_s))
        scalars = {f"exact/{label}": share for label, share, _ in marks.mistakes}
        if exam.opponent == "exact":
            scalars |= {f"exact/{row.kind}, {row.player}": row.mistakes for row in board.mistakes()}
        else:
            name = "version" if exam.opponent.startswith("version") else exam.opponent
            scalars[f"strength/{name}"] = marks.score
        ratings = board.ratings()
        if ratings:
            scalars["strength/elo"] = ratings[-1].elo
        self._scalars.write(self.status.positions, scalars)

    def draining(self) -> None:
        self._ended = time.monotonic()
        self._set(phase="draining", activity="finishing games under way")
        self._tell(self.status)

    # -- telling ------------------------------------------------------------------------------------------------

    def show(self, progress: Progress | None, board: Scoreboard) -> None:
        """Tells the present status, a few times a second."""
        if time.monotonic() - self._shown < _SHOW_S:
            return
        self._shown = time.monotonic()
        self._refresh(progress, board)
        self._tell(self.status)

    def _refresh(self, progress: Progress | None, board: Scoreboard) -> None:
        self._set(
            elapsed_s=self.elapsed(),
            activity_s=time.monotonic() - self._active_since,
            positions_per_s=self._speed.now(),
            busy=self._busy.now(),
            strength=board.strength(),
            first_strength=board.strength(first=True),
            exact=board.exact(),
            first_exact=board.exact(first=True),
            mistakes=board.mistakes(),
            first_mistakes=board.mistakes(first=True),
            baselines=board.baselines(),
            ratings=board.ratings(),
            version=self._folder.state.version,
        )
        losses = progress.losses if progress is not None else {}
        stalled = self._stall.look(self.status, losses, self._all_under_way())
        if stalled is not None:
            self.message(stalled)
        if progress is not None:
            self._set(
                learner_steps=progress.step, window_rows=progress.window_rows, window_capacity=progress.window_capacity
            )
            if progress.losses:
                newest = (progress.losses["policy_loss"], progress.losses["value_loss"])
                if not self._losses or self._losses[-1] != newest:
                    self._losses = [*self._losses[-200:], newest]
                self._set(policy_loss=newest[0], value_loss=newest[1], loss_history=tuple(self._losses))

    def summary(self, progress: Progress | None, board: Scoreboard, interrupted: bool) -> Summary:
        """The last word, told once more as a status."""
        self._refresh(progress, board)
        if self.status.phase == "draining" and not self.status.positions and not interrupted:
            self.message(nothing_finished(self.elapsed(), self._all_under_way()))
        self._set(phase="finished", activity="")
        self._tell(self.status)
        return Summary(self._folder.run_id, "interrupted" if interrupted else "time", self.status)

    def close(self) -> None:
        self._scalars.close()

    def _set(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]
