"""Ratings of players from their matches: Bradley-Terry strengths on the Elo scale, with a bootstrap interval.

Bradley and Terry 1952, Biometrika 39: player i beats j with probability 1 / (1 + 10 ** ((r_j - r_i) / 400)). A draw is
half a win for each. The fit is `evalica`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Draws added to every pairing that was played, so that a player who won all games has a finite rating.
PRIOR_DRAWS = 1.0


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

    elo: relative to the anchor. low, high: bootstrap interval (percentiles) of `elo`; equal to it for the anchor.
    games: how many the player took part in.
    """

    player: str
    elo: float
    low: float
    high: float
    games: int


def ratings(
    pairings: Sequence[Pairing],
    anchor: str = "random",
    anchor_elo: float = 0.0,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[Rating, ...]:
    """Rates all players that are linked to `anchor` by games, strongest first.

    pairings: in any order; a pair may come several times. Players with no chain of games to the anchor are left out:
    nothing is known of them. Without any game of the anchor the result is empty.
    resamples: samples of a parametric bootstrap (Efron and Tibshirani 1993, section 6.5): matches of the same lengths
      between players of the fitted strengths, with the share of draws that was seen, are simulated and rated again.
      (Drawing from the games themselves would give a clean sweep an interval of no width.)
    `PRIOR_DRAWS` draws a pairing pull ratings slightly together; the fewer the games, the more.
    """
    counts = _merge(pairings)
    linked = _linked(counts, anchor)
    counts = {pair: games for pair, games in counts.items() if pair[0] in linked}
    if not counts:
        return ()
    players = sorted(linked)
    played = np.array(list(counts.values()))  # [pairs, 3]: wins, draws, losses of the first
    totals = played.sum(axis=1)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    pairs = list(counts)
    at = players.index(anchor)
    fitted = _fit(players, pairs, played + PRIOR_DRAWS * np.array([0.0, 1.0, 0.0]), at)
    elo = fitted + anchor_elo
    first, second = (np.array([players.index(pair[side]) for pair in pairs]) for side in (0, 1))
    score = 1 / (1 + 10 ** ((fitted[second] - fitted[first]) / 400))
    draws = np.minimum(played[:, 1] / totals, 2 * np.minimum(score, 1 - score))
    shares = np.stack([score - draws / 2, draws, 1 - score - draws / 2], axis=1).clip(0, 1)
    # Samples are pulled towards the fit as the fit was towards equality; else they would lie off it to one side.
    pull = np.clip(score, 0.05, 0.95)
    prior = PRIOR_DRAWS * np.stack([pull, np.zeros_like(pull), 1 - pull], axis=1)
    samples = [_fit(players, pairs, rng.multinomial(totals, shares) + prior, at) + anchor_elo for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    took_part = {p: int(sum(n for pair, n in zip(pairs, totals, strict=True) if p in pair)) for p in players}
    rated = [Rating(p, float(elo[i]), float(low[i]), float(high[i]), took_part[p]) for i, p in enumerate(players)]
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


def _fit(
    players: list[str], pairs: list[tuple[str, str]], weights: NDArray[np.float64], anchor: int
) -> NDArray[np.float64]:
    """Elo of each player, 0 for the one at index `anchor`; weights: `[pairs, 3]` wins, draws, losses of the first."""
    from evalica import Winner, bradley_terry

    cells = [(a, b, winner) for a, b in pairs for winner in (Winner.X, Winner.Draw, Winner.Y)]
    fitted = bradley_terry(
        [a for a, _, _ in cells],
        [b for _, b, _ in cells],
        [winner for _, _, winner in cells],
        weights=weights.reshape(-1).tolist(),
        tolerance=1e-6,
        limit=5_000,
    )
    elo = 400 * np.log10(fitted.scores.reindex(players).to_numpy(np.float64))
    return np.asarray(elo - elo[anchor], np.float64)
