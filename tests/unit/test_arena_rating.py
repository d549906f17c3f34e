"""Ratings against a direct fit of the same likelihood, and what their intervals promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfplay.evaluation.rating import FURTHEST, PRIOR_DRAWS, Pairing, ratings


def newton(pairings: list[Pairing], players: list[str]) -> dict[str, float]:
    """Bradley-Terry by Newton's method on the log-likelihood; the first player is 0."""
    n = len(players)
    score, games = np.zeros(n), np.zeros((n, n))
    for one in pairings:
        i, j = players.index(one.a), players.index(one.b)
        score[i] += one.wins + (one.draws + PRIOR_DRAWS) / 2
        score[j] += one.losses + (one.draws + PRIOR_DRAWS) / 2
        games[i, j] += one.games + PRIOR_DRAWS
        games[j, i] = games[i, j]
    r = np.zeros(n)
    for _ in range(100):
        p = 1 / (1 + np.exp(r[None, :] - r[:, None]))
        h = games * p * (1 - p)
        hessian = np.diag(h.sum(axis=1)) - h
        r[1:] += np.linalg.solve(hessian[1:, 1:], (score - (games * p).sum(axis=1))[1:])
    return dict(zip(players, 400 / np.log(10) * r, strict=True))


PAIRINGS = [
    Pairing("random", "net-1", 10, 4, 86),
    Pairing("net-1", "net-2", 30, 10, 60),
    Pairing("net-2", "mcts-100", 70, 10, 20),
    Pairing("random", "mcts-100", 1, 0, 99),
    Pairing("net-1", "mcts-100", 30, 0, 70),
]


def test_equals_the_maximum_of_the_likelihood() -> None:
    expected = newton(PAIRINGS, ["random", "net-1", "net-2", "mcts-100"])
    for rating in ratings(PAIRINGS):
        assert rating.elo == pytest.approx(expected[rating.player], abs=0.5)
    assert ratings(PAIRINGS)[-1].player == "random"


def test_converges_where_strengths_are_thousands_apart() -> None:
    chain = [Pairing(f"net-{i}", f"net-{i + 1}", 0, 0, 400) for i in range(6)]
    expected = newton(chain, [f"net-{i}" for i in range(7)])
    for rating in ratings(chain, anchor="net-0"):
        assert rating.elo == pytest.approx(expected[rating.player], abs=5.0)


def test_anchor_is_where_it_is_put_without_an_interval() -> None:
    rated = {one.player: one for one in ratings(PAIRINGS, anchor="mcts-100", anchor_elo=1500.0)}
    anchor = rated["mcts-100"]
    assert (anchor.elo, anchor.low, anchor.high) == pytest.approx((1500.0, 1500.0, 1500.0))
    assert anchor.games == 300
    plain = {one.player: one.elo for one in ratings(PAIRINGS)}
    assert rated["net-2"].elo - rated["net-1"].elo == pytest.approx(plain["net-2"] - plain["net-1"], abs=0.5)


def test_order_sides_and_splitting_of_pairings_do_not_matter() -> None:
    turned = [Pairing(p.b, p.a, p.losses, p.draws, p.wins) for p in reversed(PAIRINGS)]
    split = [Pairing("random", "net-1", 10, 0, 0), Pairing("net-1", "random", 86, 4, 0), *PAIRINGS[1:]]
    assert ratings(turned) == ratings(PAIRINGS) == ratings(split)


def test_more_games_make_the_interval_narrower_and_a_clean_sweep_is_finite() -> None:
    few, many = (ratings([Pairing("net", "random", 3 * n, 0, n)])[0] for n in (5, 500))
    assert few.low < few.elo < few.high and many.high - many.low < (few.high - few.low) / 4
    assert few.low < 191 < few.high
    sweep = ratings([Pairing("net", "random", 100, 0, 0)])[0]
    assert 550 < sweep.low < sweep.elo - 400 < 1000, "of 97% of the points one would have lost some of 100 games"
    assert sweep.high == pytest.approx(sweep.elo + FURTHEST, abs=1)


def test_an_interval_is_that_of_the_likelihood_ratio() -> None:
    """Of one pairing it can be found by trying all ratings."""
    wins, games = 30.0 + PRIOR_DRAWS / 2, 40.0 + PRIOR_DRAWS
    chances = 1 / (1 + 10 ** (-np.arange(-200.0, 800.0, 0.1) / 400))
    likely = wins * np.log(chances) + (games - wins) * np.log(1 - chances)
    kept = np.flatnonzero(2 * (likely.max() - likely) <= 3.841459)
    (net, _) = ratings([Pairing("net", "random", 30, 0, 10)])
    assert (net.low, net.high) == pytest.approx((kept[0] / 10 - 200, kept[-1] / 10 - 200), abs=0.2)


LADDER = {"random": 0.0, "mcts100": 600.0, "mcts1000": 1200.0, "version 1": 300.0, "version 2": 900.0,
          "version 3": 1600.0}  # fmt: skip
PLAYED = [(f"version {v}", one) for v in (1, 2, 3) for one in ("random", "mcts100", "mcts1000")]
PLAYED += [("version 2", "version 1"), ("version 3", "version 2")]


def test_simulated_ladders_are_neither_squeezed_nor_is_their_interval_too_narrow() -> None:
    """Three versions, each measured against all fixed opponents and the version before, 40 games a pairing."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(120):
        pairings = []
        for a, b in PLAYED:
            won = int(rng.binomial(40, 1 / (1 + 10 ** ((LADDER[b] - LADDER[a]) / 400))))
            pairings.append(Pairing(a, b, won, 0, 40 - won))
        rated = {one.player: one for one in ratings(pairings)}
        found.append([(rated[p].elo, rated[p].low <= LADDER[p] <= rated[p].high) for p in LADDER if p != "random"])
    elo, covered = np.moveaxis(np.array(found), 2, 0)
    truth = np.array([value for player, value in LADDER.items() if player != "random"])
    assert np.abs(elo.mean(0) / truth - 1).max() < 0.05, elo.mean(0)
    assert covered.mean() == pytest.approx(0.95, abs=0.03) and covered.mean(0).min() >= 0.88, covered.mean(0)


@pytest.mark.parametrize("truth", [0.0, 400.0, 600.0, 800.0])
def test_a_single_opponent_far_below_tells_little_and_the_interval_says_so(truth: float) -> None:
    """All possible results of 40 games, each as often as it happens: no simulation."""
    chance = 1 / (1 + 10 ** (-truth / 400))
    bias = covered = 0.0
    for won in range(41):
        often = math.comb(40, won) * chance**won * (1 - chance) ** (40 - won)
        if often > 1e-4:
            net = next(one for one in ratings([Pairing("net", "random", won, 0, 40 - won)]) if one.player == "net")
            bias += often * (net.elo - truth)
            covered += often * (net.low <= truth <= net.high)
    assert abs(bias) < max(5.0, 0.13 * truth) and covered > 0.92, (bias, covered)


def test_intervals_lie_around_the_rating_where_every_net_beat_the_anchor_always() -> None:
    games = [Pairing("mcts", "random", 40, 0, 0)]
    for i in range(20):
        games += [Pairing(f"net-{i}", "random", 40, 0, 0), Pairing(f"net-{i}", "mcts", 10 + i, 5, 25 - i)]
    for one in ratings(games):
        assert one.low <= one.elo <= one.high
        assert one.player == "random" or one.high - one.low > 50


def test_players_without_a_chain_to_the_anchor_are_left_out() -> None:
    rated = ratings([*PAIRINGS, Pairing("stranger", "other", 1, 0, 1), Pairing("idle", "random", 0, 0, 0)])
    assert {one.player for one in rated} == {"random", "net-1", "net-2", "mcts-100"}
    assert ratings([Pairing("stranger", "other", 1, 0, 1)]) == ()
    with pytest.raises(ValueError, match="against itself"):
        ratings([Pairing("random", "random", 1, 0, 0)])
