"""What a vanished node had in memory, the learner reads in the archive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from selfplay.environments.game import load, spec_from_string
from selfplay.episode import Provenance, to_batch
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store import Receipt
from selfplay.store.table import maintenance
from selfplay.store.table.commit import Committer
from selfplay.store.table.write import write_block
from trainers.run.committed_blocks import episodes_of

#: Starts Ray and kills actors: half a minute.
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def archived(place: Path) -> tuple[list[Receipt], pa.RecordBatch]:
    """A block of games in a corpus, beside another of the same writer."""
    spec = spec_from_string("tic_tac_toe")
    game = load(spec)
    provenance = Provenance("run", spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    net = HashNet(game.num_actions, value_range=0.5)
    committer = Committer(str(place), "run", 1)
    epoch = committer.register("p0").epoch
    rng = np.random.default_rng(0)
    play = PlaySettings(slots=8, simulations=4)
    generator = Generator(game, net, SearchConfig(), play, provenance, "p0", epoch, 0, rng)
    blocks, batches = [], []
    for number in range(2):
        batches.append(to_batch(generator.play(lambda sealed, _: sealed >= 10)))
        blocks.append(write_block(str(place), batches[-1], "p0", epoch, number))
    return committer.commit(blocks), batches[1]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_block_whose_node_is_gone_is_read_from_the_archive(
    cluster: Cluster, tmp_path: Path, compacted: bool
) -> None:
    receipts, batch = archived(tmp_path)
    if compacted:
        maintenance.compact(str(tmp_path))
    node = cluster.add_node(num_cpus=1, resources={"player": 1})

    @ray.remote(resources={"player": 1}, max_retries=0)
    def played() -> Any:
        return pa.record_batch({"block": pa.array([b"0" * 1_000_000])})  # too large to travel with the answer

    lost = [played.remote()]
    ray.wait(lost, fetch_local=False)
    cluster.remove_node(node, allow_graceful=False)
    end = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 1:
        assert time.monotonic() < end
        time.sleep(0.2)
    found = episodes_of(receipts[1], lost, str(tmp_path))
    assert found.schema.names == batch.schema.names
    for name in batch.schema.names:
        assert found.column(name).to_pylist() == batch.column(name).to_pylist(), name


def test_a_block_that_is_not_the_receipts_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    receipts, batch = archived(tmp_path)
    with pytest.raises(ValueError, match="the receipt is for"):
        episodes_of(receipts[0], [ray.put(batch.slice(1))], str(tmp_path))
