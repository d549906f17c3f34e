"""Which exam comes next, and what all of them together say: strength, mistakes, ratings."""

from __future__ import annotations

import time
from typing import Any

from selfplay.actors.examiner import Exam, Marks
from selfplay.evaluation.match import wilson
from selfplay.evaluation.rating import Pairing, ratings
from trainers.alphazero import exact_results
from trainers.alphazero.config import EvaluationConfig
from trainers.alphazero.state import State
from trainers.alphazero.status import BaselineRow, ExactRow, MistakesRow, RatingPoint, StrengthRow
from trainers.run.history_thinning import thinned

#: Games and positions of the first look at a net, so that a figure is there within seconds.
QUICK_GAMES = 20


class Scoreboard:
    """Plans exams so that they keep to their share of the processor, and puts their results into the run's state."""

    def __init__(self, config: EvaluationConfig, state: State, has_exact: bool, cores: int) -> None:
        self._config = config
        self._state = state
        self._budget = config.cpu_share * cores
        exact = ["exact"] if has_exact and config.exact_positions else []
        self._subjects = [*config.opponents, *exact]
        self._turn = 0
        self._free_at = 0.0
        self._recorded = 0
        self._rated: tuple[int, tuple[RatingPoint, ...]] = (-1, ())

    def next(self, version: int, versions: list[int]) -> Exam | None:
        """The exam to begin now, or None: one subject after the other, each on the newest version.

        versions: whose weights are kept; an earlier one is the opponent when it is the turn of "checkpoints".
        """
        if not self._subjects or time.monotonic() < self._free_at:
            return None
        first_look = self._turn < len(self._subjects)
        for _ in self._subjects:
            subject = self._subjects[self._turn % len(self._subjects)]
            self._turn += 1
            if subject == "checkpoints":
                earlier = [v for v in versions if 0 < v < version]
                if not earlier:
                    continue
                subject = f"version {earlier[len(earlier) // 2]}"
            if self._hopeless(subject) or self._examined(version, subject):
                continue
            games = min(self._config.games, QUICK_GAMES) if first_look else self._config.games
            positions = min(self._config.exact_positions, 100) if first_look else self._config.exact_positions
            return Exam(version, subject, games, positions, self._config.simulations)
        return None

    def final(self, version: int) -> list[Exam]:
        """What the last net is measured by, at full length."""
        c = self._config
        fixed = [s for s in self._subjects if s != "checkpoints"]
        return [
            Exam(version, subject, c.games, c.exact_positions, c.simulations)
            for subject in fixed
            if not self._examined(version, subject, c.exact_positions if subject == "exact" else c.games)
        ]

    def begun(self) -> None:
        """An exam was handed out: no other until its marks are in."""
        self._free_at = float("inf")

    def failed(self) -> None:
        """The exam came to nothing."""
        self._free_at = time.monotonic() + 5.0

    def record(self, marks: Marks, elapsed_s: float, seconds: float) -> None:
        """Takes marks in. seconds: how long the exam took by the clock."""
        wait = marks.cpu_s / self._budget
        if self._turn >= len(self._subjects):  # until every subject had its turn a person waits for the first figures
            wait = max(wait, self._config.every_s)
        self._free_at = time.monotonic() + max(0.0, wait - seconds)
        exam = marks.exam
        self._recorded += 1
        if exam.opponent == "exact":
            rows = exact_results.added(self._state.exact, marks)
            self._state.exact = thinned(rows, lambda row: None, lambda row: row["version"])
            return
        self._state.matches.append(
            {
                "version": exam.version,
                "opponent": exam.opponent,
                "wins": marks.wins,
                "draws": marks.draws,
                "losses": marks.losses,
                "cut": marks.cut,
                "elapsed_s": elapsed_s,
                "simulations": exam.simulations,
                "asked": exam.games,
            }
        )
        self._state.matches = thinned(self._state.matches, _kind, lambda row: (row["version"], row["elapsed_s"]))

    def _hopeless(self, subject: str) -> bool:
        """Random play teaches nothing more about a net that always beats it."""
        rows = [m for m in self._state.matches if m["opponent"] == subject]
        return subject == "random" and len(rows) >= 2 and all(m["wins"] == _games(m) for m in rows[-2:])

    def _examined(self, version: int, subject: str, length: int = 1) -> bool:
        """Whether there was an exam of `length` games or positions; fewer may have been found than were asked for."""
        if subject == "exact":
            rows = [(row["version"], row.get("asked", row["positions"])) for row in self._state.exact]
        else:
            matches = [m for m in self._state.matches if m["opponent"] == subject]
            rows = [(m["version"], m.get("asked", _games(m))) for m in matches]
        return any(version == v and asked >= length for v, asked in rows)

    def strength(self, first: bool = False) -> tuple[StrengthRow, ...]:
        """The newest match against each fixed opponent and the newest against an earlier version; or the first ones."""
        rows: dict[str, StrengthRow] = {}
        for m in reversed(self._state.matches) if first else self._state.matches:
            key = _kind(m)
            games = _games(m)
            points = m["wins"] + 0.5 * (m["draws"] + m["cut"])
            low, high = wilson(points, games)
            rows[key] = StrengthRow(
                m["opponent"],
                m["version"],
                m["wins"],
                m["draws"] + m["cut"],
                m["losses"],
                points / max(games, 1),
                low,
                high,
                m["elapsed_s"],
            )
        order = [s for s in self._subjects if s in rows] + [k for k in rows if k == "version"]
        return tuple(rows[key] for key in order)

    def exact(self, first: bool = False) -> tuple[ExactRow, ...]:
        """The newest figures against exact play, or the first: one for each set of positions."""
        return exact_results.by_set(exact_results.of_one_version(self._state.exact, first))

    def mistakes(self, first: bool = False) -> tuple[MistakesRow, ...]:
        """The same, the sets of each kind of positions taken together."""
        return exact_results.by_kind(exact_results.of_one_version(self._state.exact, first))

    def baselines(self) -> tuple[BaselineRow, ...]:
        """Simple players on the positions of `exact`, by kind; none where an older version wrote the rows."""
        return exact_results.baselines(exact_results.of_one_version(self._state.exact))

    def ratings(self) -> tuple[RatingPoint, ...]:
        """Elo of every version that was measured, on the scale of random play = 0; computed when matches came in."""
        count, points = self._rated
        if count == self._recorded:
            return points
        pairings = [
            Pairing(
                f"version {m['version']}", m["opponent"], m["wins"], m["draws"] + m["cut"], m["losses"]
            )
            for m in self._state.matches
        ]
        rated = ratings(pairings)
        points = tuple(
            sorted(
                (
                    RatingPoint(int(r.player.removeprefix("version ")), r.elo, r.low, r.high)
                    for r in rated
                    if r.player.startswith("version ")
                ),
                key=lambda point: point.version,
            )
        )
        self._rated = (self._recorded, points)
        return points


def _kind(match: dict[str, Any]) -> str:
    """The opponent; earlier versions are one."""
    return "version" if match["opponent"].startswith("version") else str(match["opponent"])


def _games(match: dict[str, Any]) -> int:
    return int(match["wins"] + match["draws"] + match["losses"] + match["cut"])
