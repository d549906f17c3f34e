"""New weights while games are under way: every decision is of the version that it is booked to, from root to leaves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from selfplay.environments.game import Game, load, spec_from_string
from selfplay.episode import Episode, Provenance
from selfplay.play.draws import GameDraws
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import BatchedSearch, SearchConfig
from selfplay.search.hash_net import HashNet

SETTINGS = PlaySettings(slots=32, simulations=24, cheap_simulations=3, full_fraction=0.7, opening_choices=3)


def played(
    game: Game, config: SearchConfig, nets: list[HashNet], settles: bool
) -> tuple[list[Episode], Generator]:
    """Games of 32 slots, in which the net changes every 50 decisions or so, wherever searches are then.

    settles: searches under way end before; else they begin anew.
    """
    now = 0
    told = Provenance("run", game.spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    one = Generator(
        game, lambda batch: nets[now](batch), config, SETTINGS, told, "p0", 1, 0, np.random.default_rng(4)
    )  # fmt: skip
    episodes: list[Episode] = []
    for number in range(len(nets)):
        if settles:
            episodes += one.settle()[0]
        now = number
        one.set_policy(Policy("net", number, hashlib.sha256(b"%d" % number).hexdigest()))
        episodes += one.play(lambda _, decisions: decisions >= 50)
    return episodes + one.abort(), one


@pytest.mark.parametrize(
    ("algorithm", "settles"),
    [
        ("gumbel", False),
        pytest.param("gumbel", True, marks=pytest.mark.slow),
        pytest.param("puct", False, marks=pytest.mark.slow),
    ],
)
def test_a_decision_is_of_one_net(algorithm: str, settles: bool) -> None:
    game = load(spec_from_string("connect_four"))
    config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
    nets = [HashNet(game.num_actions, value_range=0.5, salt=salt) for salt in range(4)]
    episodes, one = played(game, config, nets, settles)
    assert (one.search.stats.wasted == 0) if settles else (one.search.stats.wasted > 32)  # weights did change in them
    alone = [BatchedSearch(game, net, config, 1, SETTINGS.simulations) for net in nets]
    versions, repeated = set(), 0
    for episode in episodes:
        assert episode.game is not None
        draws = GameDraws(game, SETTINGS, algorithm == "gumbel", episode.seed)
        state = game.new_initial_state()
        for ply, step in enumerate(episode.game.steps):
            if step.source == "search":
                (version,) = (
                    span.version
                    for span in episode.policy_spans
                    if span.seat == step.seat and span.first_step <= ply <= span.last_step
                )
                full, noise = draws.search(len(state.legal_actions()))
                search = alone[version]
                search.start(0, state.clone(), SETTINGS.simulations if full else SETTINGS.cheap_simulations, noise)
                while not search.tick():
                    pass
                found = search.result(0)
                assert full == step.full_search
                assert found.raw_value == step.raw_value and found.root_value == step.root_value
                assert (found.prior == step.prior).all() and (found.visits == step.visits).all()
                assert np.array_equal(found.q, step.q, equal_nan=True)
                assert draws.move(ply, found.actions, found.visits, found.action) == step.action
                versions.add(version)
                repeated += 1
            state.apply_action(step.action)
    assert versions == set(range(4)) and repeated > 180
