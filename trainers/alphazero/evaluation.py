"""Measures the versions of a run while it goes on: one match at a time, in an actor of its own.

What is measured next is the scoreboard's business (`trainers.alphazero.scoreboard`); here it is asked for, awaited and
written down. A run does not end because nobody can measure it: an examiner that always dies is done without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from selfplay.actors.examiner import Exam, Marks
from selfplay.errors import UserError
from trainers.alphazero.actors import Crew
from trainers.alphazero.scoreboard import Scoreboard
from trainers.alphazero.status_tracker import Watch
from trainers.run.event_log import note
from trainers.run.failure_causes import cause_of, in_words

_MOST_DEATHS = 3
_FINAL_S = 20.0


class Exams:
    """One examiner, and what it was asked."""

    def __init__(self, crew: Crew, board: Scoreboard, watch: Watch) -> None:
        self.ref: Any = None  # of the marks that are awaited
        self._crew, self._board, self._watch = crew, board, watch
        self._examiner: Any = None
        self._began = 0.0
        self._deaths = 0

    def open(self) -> None:
        """Hires the examiner, where anything is to be measured."""
        if self._crew.config.evaluation.opponents or self._crew.config.evaluation.exact_positions:
            self._examiner = self._crew.examiner()

    def begin(self, version: int, kept: list[int]) -> None:
        """Asks for the next match, where the examiner is idle and one is due."""
        if self.ref is None and self._examiner is not None and self._watch.began:
            exam = self._board.next(version, kept)
            if exam is not None:
                self._board.begun()
                self._ask(exam)

    def done(self) -> bool:
        """Takes the marks, which must be ready or be waited for; whether there are any."""
        ref, self.ref = self.ref, None
        try:
            marks: Marks = ray.get(ref)
        except RayActorError as error:
            self._board.failed()
            self._replace(error)
            return False
        except UserError:  # the version's weights were deleted meanwhile
            self._board.failed()
            return False
        self._deaths = 0
        seconds = time.monotonic() - self._began
        self._board.record(marks, self._watch.elapsed(), seconds)
        self._watch.examined(marks, self._board, seconds)
        return True

    def final(self, version: int, stop: threading.Event, show: Callable[[], None]) -> None:
        """Measures the last net at full length, for as long as a person will wait."""
        if self._examiner is None:
            return
        until = time.monotonic() + _FINAL_S
        self._watch.activity("measuring the last net")
        exams = self._board.final(version)
        while (self.ref or exams) and self._examiner is not None and time.monotonic() < until and not stop.is_set():
            if self.ref is None:
                self._ask(exams.pop(0))
            if ray.wait([self.ref], timeout=0.2)[0]:
                self.done()
            show()

    def _ask(self, exam: Exam) -> None:
        self.ref, self._began = self._examiner.examine.remote(exam), time.monotonic()

    def _replace(self, error: RayActorError) -> None:
        note(self._crew.folder.run_id, "died", who="the examiner", why=in_words(error))
        cause = cause_of(error)
        if isinstance(cause, UserError):  # it could not begin, and another could not either
            raise cause from None
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            self._examiner = None
            self._watch.message("the examiner died again and again; strength is measured no more")
        else:
            self._examiner = self._crew.examiner()
            self._watch.message("the examiner died; another goes on")
