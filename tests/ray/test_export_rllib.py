"""RLlib learns from an export of the corpus, with its own reader and nothing of ours."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.episode import Provenance, to_batch
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.export import export

GAMES, BATCH = 64, 64


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    gc.collect()  # iterators over Ray's data complain when they are closed after it
    ray.shutdown()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Games of tic-tac-toe without random openings."""
    game = load(registry.find("tic_tac_toe"))
    settings = PlaySettings(slots=16, simulations=8, opening_fraction=0.0, temperature=0.0, ply_limit=9)
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    committer = store.Committer(str(tmp_path / "corpus"), "run", 1)
    epoch = committer.register("a").epoch
    net, rng = HashNet(game.num_actions, value_range=1.0), np.random.default_rng(0)
    one = Generator(game, net, SearchConfig(), settings, provenance, "a", epoch, 0, rng)
    one.set_policy(Policy("run", 1, "c" * 64))
    episodes = one.play(lambda sealed, _: sealed >= GAMES)[:GAMES]
    committer.commit([store.write_block(str(tmp_path / "corpus"), to_batch(episodes), "a", epoch, 0)])
    done = export(store.open(str(tmp_path / "corpus")), "rllib", str(tmp_path / "out"), options={"seat": "0"})
    assert done.rows == GAMES
    return tmp_path / "out" / "tic_tac_toe-v0" / "seat-0"


@pytest.mark.slow
def test_bc_learns_from_the_export(exported: Path, cluster: None) -> None:
    from gymnasium.spaces import Box, Discrete
    from ray.rllib.algorithms.bc import BCConfig

    config = (
        BCConfig()
        .environment(observation_space=Box(-np.inf, np.inf, (27,), np.float32), action_space=Discrete(9))
        .offline_data(
            input_=[str(exported)],
            input_read_episodes=True,
            input_read_batch_size=GAMES // 4,
            dataset_num_iters_per_learner=8,
            map_batches_kwargs={"concurrency": 1},
        )
        .training(train_batch_size_per_learner=BATCH, lr=0.01)
        .learners(num_learners=0)
    )
    learner = config.build_algo()
    try:
        results = [learner.train()["learners"]["default_policy"] for _ in range(3)]
    finally:
        learner.stop()
        del learner
    losses = [float(result["policy_loss"]) for result in results]
    assert all(np.isfinite(losses)) and losses[-1] < losses[0]
    assert all(result["num_module_steps_trained"] >= BATCH for result in results)
