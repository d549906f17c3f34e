"""The corpus as a Ray Dataset: every episode once, of the version that was opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyspiel
import pytest
import ray

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_every_episode_once(tmp_path: Path, cluster: None) -> None:
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    epoch = committer.register("a").epoch
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    game = pyspiel.load_game("tic_tac_toe")

    def write(block: int) -> None:
        numbers = range(10 * block, 10 * block + 10)
        episodes = [random_episode(game, n, provenance, slot="a", epoch=epoch, number=n) for n in numbers]
        committer.commit([store.write_block(uri, to_batch(episodes), "a", epoch, block)])

    for block in range(3):
        write(block)
    corpus = store.open(uri)
    write(3)  # later: not in this version
    rows = corpus.to_ray(columns=["episode_id", "run_id", "n_steps"]).take_all()
    assert sorted(row["episode_id"] for row in rows) == sorted(f"run/a/{epoch}/{n}" for n in range(30))
    assert {row["run_id"] for row in rows} == {"run"}
    some = corpus.to_ray(where=pc.field("number") < 4)
    assert some.count() == 4 and "game" in some.schema().names
