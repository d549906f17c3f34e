"""Matches: two players, many games at once, each opening from both sides.

A player is a function from the states in which it is to move to its moves, so that one with a net evaluates the
positions of all games in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import pyspiel

from selfplay.environments.game import Game, unsearchable

#: All states in which the player is to move -> its action in each. It must leave the states as they are.
Player = Callable[[list[pyspiel.State]], list[int]]
Ended = Literal["terminal", "ply_limit"]


def choose(player: Player, states: list[pyspiel.State]) -> list[int]:
    """The player's actions; raises `ValueError` if they are not one legal action a state."""
    actions = player(states) if states else []
    if len(actions) != len(states):
        raise ValueError(f"a player was asked for {len(states)} moves and gave {len(actions)}")
    for state, action in zip(states, actions, strict=True):
        if action not in state.legal_actions():
            raise ValueError(f"a player chose {action}, which is not legal in\n{state}")
    return [int(action) for action in actions]


@dataclass(frozen=True)
class PlayedGame:
    """One finished game of a match, seen by player a.

    opening: its number in the list of openings. seat: a's. actions: all moves, the opening's included.
    utility: a's return in utility units; None at the ply limit. score: 1 won, 0.5 drawn or cut, 0 lost.
    """

    opening: int
    seat: int
    actions: tuple[int, ...]
    ended: Ended
    utility: float | None
    score: float


@dataclass(frozen=True)
class MatchResult:
    """What came of a match, seen by player a.

    wins, draws, losses: games that ended by the rules. unfinished: games cut at the ply limit, in none of those three.
    games: in order of openings, a in seat 0 first; only the finished ones where a match was stopped early.
    """

    wins: int
    draws: int
    losses: int
    unfinished: int
    games: tuple[PlayedGame, ...]

    @property
    def played(self) -> int:
        return len(self.games)

    @property
    def score(self) -> float:
        """Share of points in [0, 1]: a draw and an unfinished game count one half. NaN without games."""
        return math.nan if not self.games else sum(game.score for game in self.games) / len(self.games)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's interval for the score (Wilson 1927). Games are taken as won or lost: draws make it too wide."""
        return wilson(self.score * self.played, self.played, confidence)

    def per_opening(self) -> dict[int, float]:
        """Opening -> a's points in its games (0 to 2 where both sides were played)."""
        points: dict[int, float] = {}
        for game in self.games:
            points[game.opening] = points.get(game.opening, 0.0) + game.score
        return points


def wilson(points: float, games: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for `points` successes (may be fractional) of `games`; (0, 1) without games."""
    if games == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = points / games
    centre = share + z * z / (2 * games)
    spread = z * math.sqrt(share * (1 - share) / games + z * z / (4 * games * games))
    total = 1 + z * z / games
    return max(0.0, (centre - spread) / total), min(1.0, (centre + spread) / total)


@dataclass
class _Table:
    """A game in progress."""

    opening: int
    seat: int
    state: pyspiel.State
    actions: list[int]
    result: PlayedGame | None = None


class Match:
    """A match in progress: `advance` plays one move in every game that is not over.

    openings: lines of moves, each played twice, a in either seat. A line may not end the game.
    ply_limit: moves, the opening's included, after which a game is cut; default the game's own.
    """

    def __init__(
        self, game: Game, a: Player, b: Player, openings: Sequence[Sequence[int]], ply_limit: int | None = None
    ) -> None:
        reason = unsearchable(game)
        if reason is not None:
            raise ValueError(f"{game.spec.id} cannot be played as a match: {reason}")
        self._players = (a, b)
        self._ply_limit = game.spec.ply_limit if ply_limit is None else ply_limit
        self._tables: list[_Table] = []
        for number, line in enumerate(openings):
            for seat in (0, 1):
                state = game.after(line)
                if state.is_terminal():
                    raise ValueError(f"opening {number} of {game.spec.id} ends the game: {list(line)}")
                self._tables.append(_Table(number, seat, state, list(line)))
        self._finish()

    @property
    def done(self) -> bool:
        return all(table.result for table in self._tables)

    def advance(self) -> bool:
        """One move in each unfinished game, one call of each player at most. Whether games are left."""
        going = [table for table in self._tables if table.result is None]
        moves: list[tuple[_Table, int]] = []
        for side, player in enumerate(self._players):
            asked = [t for t in going if (t.state.current_player() == t.seat) == (side == 0)]
            moves += zip(asked, choose(player, [t.state for t in asked]), strict=True)
        for table, action in moves:
            table.state.apply_action(action)
            table.actions.append(action)
        self._finish()
        return not self.done

    def _finish(self) -> None:
        for table in self._tables:
            if table.result is not None:
                continue
            if table.state.is_terminal():
                utility = float(table.state.returns()[table.seat])
                score = 0.5 + 0.5 * ((utility > 0) - (utility < 0))
                self._end(table, "terminal", utility, score)
            elif len(table.actions) >= self._ply_limit:
                self._end(table, "ply_limit", None, 0.5)

    @staticmethod
    def _end(table: _Table, ended: Ended, utility: float | None, score: float) -> None:
        table.result = PlayedGame(table.opening, table.seat, tuple(table.actions), ended, utility, score)

    def result(self) -> MatchResult:
        """Of the games that are over."""
        games = tuple(table.result for table in self._tables if table.result is not None)
        by_rules = [game.score for game in games if game.ended == "terminal"]
        return MatchResult(
            by_rules.count(1.0), by_rules.count(0.5), by_rules.count(0.0), len(games) - len(by_rules), games
        )


def play_match(
    game: Game, a: Player, b: Player, openings: Sequence[Sequence[int]], ply_limit: int | None = None
) -> MatchResult:
    """Plays all games of a match to their ends. See `Match`."""
    match = Match(game, a, b, openings, ply_limit)
    while not match.done:
        match.advance()
    return match.result()
