"""Ratings of players from their matches: Bradley-Terry strengths on the Elo scale, with likelihood intervals.

Bradley and Terry 1952, Biometrika 39: player i beats j with probability 1 / (1 + 10 ** ((r_j - r_i) / 400)). A draw is
half a win for each. The ratings are the maximum of that likelihood, but for `PRIOR_DRAWS`. An interval holds the values
of a rating that a likelihood-ratio test does not reject, all other ratings being chosen to suit it (Venzon and
Moolgavkar 1988, Applied Statistics 37). It is as lopsided as the games are: of a player who won all of them hardly more
than the lower end is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Draws added to every pairing that was played, so that a player who won all games has a finite rating. With 40 games a
#: pairing, ladders of several players are then right to a few per cent on average, and of a player who was measured by
#: one opponent alone the rating is at most an eighth too high up to 800 points above it. (A whole draw makes ladders a
#: tenth too short; none at all makes single ratings infinite.)
PRIOR_DRAWS = 0.25
#: Ends of an interval are not sought further than this from the rating, Elo.
FURTHEST = 1000.0
_NATS = np.log(10) / 400

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pairing:
    """The games between two players, seen by `a`. Draws include games cut at the ply limit."""

    a: str
    b: str
    wins: int
    draws: int
    losses: int

    @property
    def games(self) -> int:
        return self.wins + self.draws + self.losses


@dataclass(frozen=True)
class Rating:
    """A player's strength.

    elo: relative to the anchor. low, high: interval of `elo`, at most `FURTHEST` from it; equal to it for the anchor.
    games: how many the player took part in.
    """

    player: str
    elo: float
    low: float
    high: float
    games: int


def ratings(
    pairings: Sequence[Pairing], anchor: str = "random", anchor_elo: float = 0.0, confidence: float = 0.95
) -> tuple[Rating, ...]:
    """Rates all players that are linked to `anchor` by games, strongest first.

    pairings: in any order; a pair may come several times. Players with no chain of games to the anchor are left out:
    nothing is known of them. Without any game of the anchor the result is empty.
    """
    counts = _merge(pairings)
    linked = _linked(counts, anchor)
    counts = {pair: games for pair, games in counts.items() if pair[0] in linked}
    if not counts:
        return ()
    players = sorted(linked, key=lambda player: (player != anchor, player))  # the anchor comes first
    place = {player: i for i, player in enumerate(players)}
    games = _Games(
        first=np.array([place[one] for one, _ in counts]),
        second=np.array([place[other] for _, other in counts]),
        wins=np.array([won + (drawn + PRIOR_DRAWS) / 2 for won, drawn, _ in counts.values()]),
        games=np.array([row.sum() + PRIOR_DRAWS for row in counts.values()]),
        players=len(players),
    )
    fitted = _fit(games, np.zeros((1, len(players))), np.arange(len(players)) == 0)[0]
    ends = _ends(games, fitted, NormalDist().inv_cdf((1 + confidence) / 2))
    elo, (low, high) = fitted / _NATS, ends / _NATS
    took_part = {p: int(sum(row.sum() for pair, row in counts.items() if p in pair)) for p in players}
    rated = [
        Rating(p, anchor_elo + float(elo[i]), anchor_elo + float(low[i]), anchor_elo + float(high[i]), took_part[p])
        for p, i in place.items()
    ]
    return tuple(sorted(rated, key=lambda one: (-one.elo, one.player)))


def _merge(pairings: Sequence[Pairing]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """(first, second) in alphabetical order -> `[3]` wins, draws, losses of the first; pairs without games left out."""
    counts: dict[tuple[str, str], NDArray[np.int64]] = {}
    for one in pairings:
        if one.a == one.b:
            raise ValueError(f"a rating needs games between different players, got {one.a!r} against itself")
        if one.games == 0:
            continue
        row = np.array([one.wins, one.draws, one.losses])
        pair = (one.a, one.b)
        if one.b < one.a:
            pair, row = (one.b, one.a), row[::-1]
        counts[pair] = counts.get(pair, np.zeros(3, np.int64)) + row
    return dict(sorted(counts.items()))


def _linked(counts: dict[tuple[str, str], NDArray[np.int64]], anchor: str) -> set[str]:
    """The players with a chain of games to `anchor`, itself included."""
    found = {anchor}
    while True:
        more = {player for pair in counts if found.intersection(pair) for player in pair} - found
        if not more:
            return found
        found |= more


@dataclass(frozen=True)
class _Games:
    """All pairings, `[pairs]` each: places of the two players; points of the first, of so many games."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    wins: Array
    games: Array
    players: int

    def likelihood(self, at: Array) -> Array:
        """`[B]`, the logarithm of the likelihood of ratings `at` `[B, players]`, in nats of strength."""
        ahead = at[:, self.first] - at[:, self.second]
        return np.asarray(-(self.games * np.logaddexp(0.0, -ahead) + (self.games - self.wins) * ahead).sum(1))

    def slope(self, at: Array) -> tuple[Array, Array]:
        """`[B, players]` gradient of `likelihood`, and `[B, players, players]` its curvature, negated."""
        chance = 1 / (1 + np.exp(at[:, self.second] - at[:, self.first]))
        gradient, curvature = np.zeros_like(at), np.zeros((*at.shape, self.players))
        rows = np.arange(len(at))[:, None]
        left, weight = self.wins - self.games * chance, self.games * chance * (1 - chance)
        np.add.at(gradient, (rows, self.first), left)
        np.add.at(gradient, (rows, self.second), -left)
        for one, other, sign in (
            (self.first, self.first, 1), (self.second, self.second, 1),
            (self.first, self.second, -1), (self.second, self.first, -1),
        ):  # fmt: skip
            np.add.at(curvature, (rows, one, other), sign * weight)
        return gradient, curvature


def _fit(games: _Games, start: Array, fixed: NDArray[np.bool_]) -> Array:
    """`[B, players]`: the most likely ratings, by Newton's method. fixed: which of `start` stay as they are."""
    at, fixed = start.copy(), np.broadcast_to(fixed, start.shape)
    both = fixed[:, :, None] | fixed[:, None, :]
    for _ in range(200):
        gradient, curvature = games.slope(at)
        gradient[fixed], curvature[both] = 0.0, 0.0
        curvature += np.eye(games.players) * (fixed[:, :, None] + 1e-12)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        at += step * np.minimum(1.0, 2.0 / np.maximum(longest, 1e-300))
        if longest.max() < 1e-7:
            break
    return at


def _ends(games: _Games, fitted: Array, z: float) -> Array:
    """`[2, players]`: lower and upper ends of the intervals. z: half their width in standard deviations, if normal."""
    n = games.players
    best = games.likelihood(fitted[None])[0]
    player, side = np.tile(np.arange(1, n), 2), np.repeat([-1.0, 1.0], n - 1)
    rows = np.arange(len(player))
    fixed = np.zeros((len(player), n), bool)
    fixed[:, 0] = fixed[rows, player] = True
    inside, outside = np.zeros(len(player)), np.full(len(player), FURTHEST * _NATS)
    away, at = np.minimum(outside, 0.5), np.tile(fitted, (len(player), 1))
    for _ in range(40):
        at[rows, player] = fitted[player] + side * away
        at = _fit(games, at, fixed)
        root = np.sqrt(np.maximum(2 * (best - games.likelihood(at)), 1e-12))
        inside, outside = np.where(root < z, away, inside), np.where(root < z, outside, away)
        # The other ratings are at their best, so that the slope of the profile is that of the likelihood itself.
        steep = np.maximum(-side * games.slope(at)[0][rows, player] / root, 1e-9)
        guess = away + (z - root) / steep
        away = np.where((guess > inside) & (guess < outside), guess, (inside + outside) / 2)
        if (np.abs(guess - away).max() < 1e-3 and np.abs(root - z).max() < 1e-3) or (outside - inside).max() < 1e-3:
            break
    ends = np.tile(fitted, (2, 1))
    ends[0, 1:], ends[1, 1:] = fitted[1:] - away[: n - 1], fitted[1:] + away[n - 1 :]
    return ends
