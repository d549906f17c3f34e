"""What follows from the stored numbers of a search: bounds that hold whatever rounding hid, and still tell lies."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Provenance, to_batch
from selfplay.episode.schema import UNITS
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.search.schedule import considered_visits
from selfplay.store.release.verifier import searches as one_file
from selfplay.store.verify.episode import Rules, verify_batch
from selfplay.store.verify.searched import ROUNDING, halving_visits
from selfplay.store.verify.surprise import gumbel_surprise, visit_surprise

Array = np.ndarray[Any, Any]


def test_sequential_halving_leaves_these_visits() -> None:
    for considered in range(1, 19):
        for simulations in range(1, 70, 3):
            visits = [0] * considered
            for wanted in considered_visits(considered, simulations):
                visits[visits.index(int(wanted))] += 1
            assert halving_visits(considered, simulations).tolist() == sorted(visits)
            assert sorted(one_file.halving(considered, simulations)) == sorted(visits)


def drawn(rng: np.random.Generator) -> tuple[Array, Array, Array, float]:
    """A search's visits `[K]`, priors `[K]` (some tiny), values `[K]` in [-1, 1] and raw value, not rounded."""
    count = int(rng.integers(1, 9))
    logits = rng.normal(size=count) * rng.choice([0.5, 3.0, 12.0])
    prior = np.exp(logits - logits.max())
    visits = rng.integers(0, rng.choice([2, 6, 40]), count)
    return visits, prior / prior.sum(), rng.uniform(-1, 1, count), float(rng.uniform(-1, 1))


def told(target: Array, prior: Array) -> float:
    """Surprise as it is computed when a game is played: in float32."""
    policy, net = target.astype(np.float32), np.maximum(prior.astype(np.float32), 1e-9)
    return max(float(np.sum(policy * np.log(np.maximum(policy, 1e-9) / net))), 0.0)


def improved(visits: Array, prior: Array, q: Array, raw: float, c_visit: float, c_scale: float) -> Array:
    """The target of a Gumbel search, from exact numbers (Danihelka et al. 2022, section 4 and appendix D)."""
    visited, half = visits > 0, (q + 1) / 2
    unvisited = (raw + 1) / 2
    if visited.any():
        mean = (prior * half)[visited].sum() / prior[visited].sum()
        unvisited = (unvisited + visits.sum() * mean) / (1 + visits.sum())
    score = np.log(prior) + (c_visit + visits.max()) * c_scale * np.where(visited, half, unvisited)
    share = np.exp(score - score.max())
    return np.asarray(share / share.sum())


def test_surprise_lies_within_its_bounds_whatever_was_rounded() -> None:
    rng, widths = np.random.default_rng(0), []
    for _ in range(300):
        visits, prior, q, raw = drawn(rng)
        stored = np.rint(prior * UNITS).astype(np.int64)
        values, net = np.rint(q * UNITS).astype(np.int64), np.rint(raw * UNITS).astype(np.int64)
        c_scale = float(rng.choice([0.2, 1.0]))
        surprise = told(improved(visits, prior, q, raw, 50.0, c_scale), prior)
        first = np.zeros(1, np.int64)
        low, high = gumbel_surprise(first, visits, stored, values, np.array([net]), 50.0, c_scale, ROUNDING)
        assert low[0] <= surprise <= high[0], (visits, prior, q, raw)
        seen = [int(value) if n else None for value, n in zip(values, visits, strict=True)]
        plain = one_file.gumbel_surprise(visits.tolist(), stored.tolist(), seen, int(net), 50.0, c_scale)
        assert plain == pytest.approx((low[0], high[0]), rel=1e-6, abs=1e-9)
        if prior.min() > 0.01 and visits.any():
            widths.append(high[0] - low[0])
        low, high = visit_surprise(first, visits, stored, ROUNDING)
        share = visits / visits.sum() if visits.any() else prior
        assert low[0] <= told(share, prior) <= high[0], (visits, prior)
        plain = one_file.visit_surprise(visits.tolist(), stored.tolist())
        assert plain == pytest.approx((low[0], high[0]), rel=1e-6, abs=1e-9)
    assert len(widths) > 50 and np.median(widths) < 0.01


@pytest.mark.parametrize(
    ("name", "search", "play", "logits"),
    [
        ("connect_four", {"algorithm": "gumbel"}, {"full_fraction": 0.5, "cheap_simulations": 0}, 2.0),
        ("connect_four", {"algorithm": "gumbel", "considered": 3, "c_scale": 1.0}, {"opening_choices": 3}, 32.0),
        ("connect_four", {"algorithm": "puct"}, {"full_fraction": 0.5, "temperature": 0.3}, 8.0),
        ("openspiel:oware", {"algorithm": "gumbel"}, {"ply_limit": 12}, 2.0),
        ("openspiel:dots_and_boxes(num_rows=2,num_cols=2,utility_margin=True)", {"algorithm": "gumbel"}, {}, 2.0),
        ("openspiel:dots_and_boxes(num_rows=2,num_cols=2)", {"algorithm": "puct"}, {"temperature": 0.0}, 2.0),
    ],
)
def test_honest_games_of_any_settings_are_true(
    name: str, search: dict[str, Any], play: dict[str, Any], logits: float
) -> None:
    spec = registry.find(name)
    game = load(spec)
    made_by = Provenance("run", spec.id, spec.version, ruleset_digest(spec), "b" * 64, "0", "here", "CC0-1.0")
    settings = PlaySettings(**({"slots": 4, "simulations": 11, "cheap_simulations": 3, "ply_limit": 30} | play))
    one = Generator(
        game, HashNet(game.num_actions, logit_range=logits), SearchConfig(**search), settings, made_by,
        "p0", 1000, 0, np.random.default_rng(0),
    )  # fmt: skip
    one.set_policy(Policy("run", 1, "d" * 64))
    batch = to_batch(one.play(lambda sealed, _: sealed >= 6) + one.abort())
    whole = {"c_visit": 50.0, "c_scale": 0.2, "considered": 16, "simulations": 11, "cheap_simulations": 3}
    names = ("temperature", "temperature_plies", "opening_plies", "ply_limit")
    told_of = {name: getattr(settings, name) for name in names}
    config = {"search": whole | search | {"full_fraction": settings.full_fraction}, "selfplay": told_of}
    config["search"]["cheap_simulations"] = settings.cheap_simulations
    rules = Rules([], [{"config": json.dumps(config), "config_digest": "b" * 64}])
    found = Counter((check.state, check.reason, check.uncovered) for check in verify_batch(batch, rules))
    assert set(found) == {("true", "", ())}
