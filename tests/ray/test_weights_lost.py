"""Weights whose node vanished before an actor pulled them are read from the run's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from selfplay.actors.weights import Published
from selfplay.errors import UserError
from selfplay.io import run_files
from selfplay.nets import weights

#: Starts Ray and takes a node away: half a minute.
pytestmark = pytest.mark.slow
TENSORS = {"w": np.arange(500_000, dtype=np.float32)}


@pytest.fixture
def lost() -> Iterator[Any]:
    """The ref of weights that lay on a node that is gone."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    node = nodes.add_node(num_cpus=1, resources={"steady": 1})

    @ray.remote(resources={"steady": 1}, max_retries=0)
    def learned() -> Any:
        return TENSORS

    ref = learned.remote()
    ray.wait([ref], fetch_local=False)
    nodes.remove_node(node, allow_graceful=False)
    end = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 1:
        assert time.monotonic() < end
        time.sleep(0.2)
    yield ref
    ray.shutdown()
    nodes.shutdown()


def test_they_are_read_from_the_folder_if_they_are_what_was_published(lost: Any, tmp_path: Path) -> None:
    run = str(tmp_path)
    assert weights.save_version(run, 3, TENSORS, {}) == 3
    found = Published(3, weights.digest(TENSORS), [lost], run_files.weights_uri(run, 3)).fetch()
    assert np.array_equal(found["w"], TENSORS["w"])
    with pytest.raises(UserError, match="is not version 3 as it was published"):
        Published(3, "0" * 64, [lost], run_files.weights_uri(run, 3)).fetch()
