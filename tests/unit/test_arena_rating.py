"""Ratings against a direct fit of the same likelihood, and what their intervals promise."""

from __future__ import annotations

import numpy as np
import pytest

from selfplay.arena.rating import PRIOR_DRAWS, Pairing, ratings

pytest.importorskip("evalica", reason="needs the factory extra")


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
    for rating in ratings(PAIRINGS, resamples=20):
        assert rating.elo == pytest.approx(expected[rating.player], abs=0.5)
    assert ratings(PAIRINGS, resamples=5)[-1].player == "random"


def test_converges_where_strengths_are_thousands_apart() -> None:
    chain = [Pairing(f"net-{i}", f"net-{i + 1}", 0, 0, 400) for i in range(6)]
    expected = newton(chain, [f"net-{i}" for i in range(7)])
    for rating in ratings(chain, anchor="net-0", resamples=5):
        assert rating.elo == pytest.approx(expected[rating.player], abs=5.0)


def test_anchor_is_where_it_is_put_without_an_interval() -> None:
    rated = {one.player: one for one in ratings(PAIRINGS, anchor="mcts-100", anchor_elo=1500.0, resamples=20)}
    anchor = rated["mcts-100"]
    assert (anchor.elo, anchor.low, anchor.high) == pytest.approx((1500.0, 1500.0, 1500.0))
    assert anchor.games == 300
    plain = {one.player: one.elo for one in ratings(PAIRINGS, resamples=20)}
    assert rated["net-2"].elo - rated["net-1"].elo == pytest.approx(plain["net-2"] - plain["net-1"], abs=0.5)


def test_order_sides_and_splitting_of_pairings_do_not_matter() -> None:
    turned = [Pairing(p.b, p.a, p.losses, p.draws, p.wins) for p in reversed(PAIRINGS)]
    split = [Pairing("random", "net-1", 10, 0, 0), Pairing("net-1", "random", 86, 4, 0), *PAIRINGS[1:]]
    assert ratings(turned, resamples=10) == ratings(PAIRINGS, resamples=10) == ratings(split, resamples=10)


def test_more_games_make_the_interval_narrower_and_a_clean_sweep_is_finite() -> None:
    few, many = (ratings([Pairing("net", "random", 3 * n, 0, n)], resamples=100)[0] for n in (5, 500))
    assert few.low < few.elo < few.high and many.high - many.low < (few.high - few.low) / 4
    assert few.low < 191 < few.high
    sweep = ratings([Pairing("net", "random", 100, 0, 0)], resamples=100)[0]
    assert 500 < sweep.elo < 1500 and sweep.low < sweep.elo - 50


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(0), 200.0
    wins = rng.binomial(100, 1 / (1 + 10 ** (-truth / 400)), size=80)
    rated = ratings([Pairing(f"net-{i}", "random", int(n), 0, int(100 - n)) for i, n in enumerate(wins)])
    assert 70 <= sum(one.low <= truth <= one.high for one in rated) <= 79


def test_intervals_lie_around_the_rating_where_every_net_beat_the_anchor_always() -> None:
    games = [Pairing("mcts", "random", 40, 0, 0)]
    for i in range(20):
        games += [Pairing(f"net-{i}", "random", 40, 0, 0), Pairing(f"net-{i}", "mcts", 10 + i, 5, 25 - i)]
    for one in ratings(games, resamples=60):
        assert one.low <= one.elo <= one.high
        assert one.player == "random" or one.high - one.low > 50


def test_players_without_a_chain_to_the_anchor_are_left_out() -> None:
    rated = ratings([*PAIRINGS, Pairing("stranger", "other", 1, 0, 1), Pairing("idle", "random", 0, 0, 0)], resamples=5)
    assert {one.player for one in rated} == {"random", "net-1", "net-2", "mcts-100"}
    assert ratings([Pairing("stranger", "other", 1, 0, 1)]) == ()
    with pytest.raises(ValueError, match="against itself"):
        ratings([Pairing("random", "random", 1, 0, 0)])
