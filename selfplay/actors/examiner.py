"""Measures strength beside the run: matches against fixed opponents and earlier versions, and exact play.

It runs at the lowest priority, and each call says how much processor time it took, so that the driver can space calls.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from selfplay.agent import Agent
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.evaluation.baselines import Compared, compared
from selfplay.evaluation.exact import mistakes, test_sets
from selfplay.evaluation.match import Player, play_match
from selfplay.evaluation.openings import openings
from selfplay.evaluation.players import mcts_player, random_player
from selfplay.io import storage


@dataclass(frozen=True)
class Exam:
    """What to measure of `version`.

    opponent: "random", "mctsN", "version N", or "exact" for comparison with exact play.
    games: of a match, both sides of each opening. positions: a depth, for "exact". simulations: of the net's search.
    """

    version: int
    opponent: str
    games: int
    positions: int
    simulations: int


@dataclass(frozen=True)
class Marks:
    """The result of an exam.

    wins, draws, losses, cut: of a match, from the version's point of view; `score` and its 95% interval.
    mistakes: of an exact exam, (label, share of positions, positions); sets: the positions that it was about, with what
    simple players did there. cpu_s: processor time spent.
    """

    exam: Exam
    wins: int = 0
    draws: int = 0
    losses: int = 0
    cut: int = 0
    score: float = 0.0
    low: float = 0.0
    high: float = 0.0
    mistakes: tuple[tuple[str, float, int], ...] = ()
    sets: tuple[Compared, ...] = ()
    cpu_s: float = 0.0


class Examiner:
    """Plays for marks; loads versions from the run's own folder."""

    def __init__(self, env: registry.Portable, run_uri: str, seed: int) -> None:
        os.nice(19)
        storage.refuse_unseen(run_uri)
        self._game = load(registry.unpack(env))
        self._run_uri = run_uri
        self._seed = seed
        self._agents: dict[int, Agent] = {}

    def pid(self) -> int:
        """The process, for who wants to watch or to kill it."""
        return os.getpid()

    def examine(self, exam: Exam) -> Marks:
        """Raises `UserError` if the version's weights are no longer kept."""
        began = time.process_time()
        marks = self._exact(exam) if exam.opponent == "exact" else self._match(exam)
        return Marks(**{**marks.__dict__, "cpu_s": time.process_time() - began})

    def _match(self, exam: Exam) -> Marks:
        lines = [opening.line for opening in openings(self._game, max(1, exam.games // 2), seed=self._seed)]
        result = play_match(
            self._game, self._player(exam.version, exam.simulations), self._opponent(exam), lines
        )
        low, high = result.interval()
        return Marks(
            exam, result.wins, result.draws, result.losses, result.unfinished, float(result.score), low, high
        )

    def _exact(self, exam: Exam) -> Marks:
        rows: list[tuple[str, float, int]] = []
        sets = [one.head(exam.positions) for one in test_sets(self._game)]
        for simulations in dict.fromkeys((exam.simulations, 0)):
            player = self._player(exam.version, simulations)
            how = f"{simulations} simulations" if simulations else "raw policy"
            for positions in sets:
                found = mistakes(self._game, player, positions)
                rows += [(f"{one.label}, {how}", one.share, one.positions) for one in found if one.positions]
        return Marks(exam, mistakes=tuple(rows), sets=tuple(kind for one in sets for kind in compared(self._game, one)))

    def _player(self, version: int, simulations: int) -> Player:
        if version not in self._agents:
            while len(self._agents) >= 3:
                self._agents.pop(next(iter(self._agents)))
            self._agents[version] = Agent.load(self._run_uri, version)
        agent = self._agents[version]
        return lambda states: agent.act_many(states, simulations)

    def _opponent(self, exam: Exam) -> Player:
        seed = int(np.random.SeedSequence((self._seed, exam.version)).generate_state(1)[0])
        if exam.opponent == "random":
            return random_player(seed)
        if exam.opponent.startswith("mcts"):
            return mcts_player(self._game, int(exam.opponent.removeprefix("mcts")), seed)
        return self._player(int(exam.opponent.removeprefix("version ")), exam.simulations)
