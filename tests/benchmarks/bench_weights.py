"""New weights for many actors on several nodes: does one server keep up, and does one copy a node cross the wire?

    python tests/benchmarks/bench_weights.py --nodes 4 --actors 6 --mib 4

Every node, on this machine, has a raylet and an object store of its own; server and learner are on the first.
asks      `newer_than` answered a second by one server, with N calls under way at any time; and, where N actors ask
          every 4 s, as players do, how long an answer takes. On few cores askers and server share them: a lower bound.
spread    a version is made by the learner, and all actors pull it as players do: through the server, then by ray.get.
          On each node first one actor pulls, then the others: later ones find the node's copy. The store of each node
          grows by so many copies of a version while all its actors hold it.
at once   seconds from publishing until every actor of every node has it, when all pull at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from statistics import median
from typing import Any

import numpy as np
import ray
from cluster_run import say
from plasma import Stores
from ray.cluster_utils import Cluster

from selfplay.actors.weights import Published, WeightServer

_EVERY_S = 4.0
_MIB = 2**20
#: In which stores free what nobody holds any more.
_SETTLE_S = 2.0


@ray.remote(num_cpus=0)
class Asker:
    """Asks a server as many players would."""

    async def closed(self, server: Any, calls: int, seconds: float) -> int:
        """Keeps so many calls under way; answers that came."""
        end, answers = time.perf_counter() + seconds, 0

        async def one() -> None:
            nonlocal answers
            while time.perf_counter() < end:
                await server.newer_than.remote(0)
                answers += 1

        await asyncio.gather(*(one() for _ in range(calls)))
        return answers

    async def paced(self, server: Any, players: int, seconds: float, seed: int) -> list[float]:
        """So many players ask every 4 s, each at its own moment; seconds that each answer took."""
        rng, took = np.random.default_rng(seed), []

        async def one(first: float) -> None:
            await asyncio.sleep(first)
            end = time.perf_counter() + seconds - first
            while time.perf_counter() < end:
                began = time.perf_counter()
                await server.newer_than.remote(0)
                took.append(time.perf_counter() - began)
                await asyncio.sleep(max(0.0, _EVERY_S - (time.perf_counter() - began)))

        await asyncio.gather(*(one(rng.uniform(0, _EVERY_S)) for _ in range(players)))
        return took


@ray.remote(num_cpus=0)
class Learner:
    """Makes versions: float32 arrays, so many MiB together."""

    def make(self, mib: float, version: int) -> dict[str, Any]:
        each = int(mib * _MIB / 4 / 16)
        return {f"layer{i}": np.full(each, version + i, np.float32) for i in range(16)}


@ray.remote(num_cpus=0)
class Puller:
    """Pulls as a player does."""

    def __init__(self, server: Any) -> None:
        self._server, self._version, self._held = server, 0, None

    def pull(self) -> tuple[float, float, int]:
        """(seconds of asking, seconds of getting, version)."""
        began = time.perf_counter()
        newer = ray.get(self._server.newer_than.remote(self._version))
        asked = time.perf_counter()
        if newer is not None:
            self._held = ray.get(newer.ref[0])
            self._version = newer.version
        return asked - began, time.perf_counter() - asked, self._version


def asks(server: Any, askers: list[Any], counts: list[int], seconds: float) -> list[dict[str, Any]]:
    found = []
    for count in counts:
        share = [count // len(askers) + (i < count % len(askers)) for i in range(len(askers))]
        began = time.perf_counter()
        done = sum(ray.get([a.closed.remote(server, n, seconds) for a, n in zip(askers, share, strict=True) if n]))
        per_s = done / (time.perf_counter() - began)
        calls = [a.paced.remote(server, n, seconds, i) for i, (a, n) in enumerate(zip(askers, share, strict=True)) if n]
        took = sorted(one for part in ray.get(calls) for one in part)
        need = count / _EVERY_S
        found.append({
            "callers": count, "answers_per_s": round(per_s), "needed_per_s": need,
            "times_the_need": round(per_s / need, 1),
            "paced_median_ms": round(1000 * median(took), 2),
            "paced_p99_ms": round(1000 * took[int(0.99 * (len(took) - 1))], 2),
        })  # fmt: skip
        say(json.dumps(found[-1]))
    return found


def spread(
    server: Any, learner: Any, pullers: dict[str, list[Any]], stores: Stores, mib: float, rounds: int
) -> dict[str, Any]:
    """pullers: by node id."""
    first: list[float] = []
    later: list[float] = []
    copies: dict[str, list[float]] = {node: [] for node in pullers}
    everywhere: list[float] = []
    number = len(next(iter(pullers.values())))
    for version in range(1, 2 * rounds + 1):
        time.sleep(_SETTLE_S)
        before = stores.used()
        made = learner.make.remote(mib, version)
        ray.wait([made], fetch_local=False)
        began = time.perf_counter()
        ray.get(server.publish.remote(Published(version, "0" * 64, [made])))
        if version % 2:
            pulled = ray.get([actors[0].pull.remote() for actors in pullers.values()])
            first += [get for _, get, _ in pulled]
            for i in range(1, number):
                pulled = ray.get([actors[i].pull.remote() for actors in pullers.values()])
                later += [get for _, get, _ in pulled]
            for node, used in stores.used().items():
                if node in pullers:
                    copies[node].append((used - before[node]) / (mib * _MIB))
            say(f"version {version}: copies by node {[round(found[-1], 2) for found in copies.values()]}")
        else:
            pulled = ray.get([actor.pull.remote() for actors in pullers.values() for actor in actors])
            everywhere.append(time.perf_counter() - began)
            say(f"version {version}: everywhere after {everywhere[-1]:.3f} s")
        assert all(has == version for _, _, has in pulled)
        del made
    return {
        "versions": 2 * rounds,
        "first_get_on_a_node_ms": round(1000 * median(first), 2),
        "later_get_on_a_node_ms": round(1000 * median(later), 2) if later else None,
        "copies_in_the_store_of_a_node": [round(median(found), 2) for found in copies.values()],
        "seconds_until_all_have_it": {"median": round(median(everywhere), 3), "max": round(max(everywhere), 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--actors", type=int, default=6, help="that pull, of a node")
    parser.add_argument("--mib", type=float, default=4.0, help="of a version")
    parser.add_argument("--rounds", type=int, default=5, help="versions pulled in turn, and as many at once")
    parser.add_argument("--callers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--askers", type=int, default=4, help="processes that ask on their behalf")
    parser.add_argument("--seconds", type=float, default=12.0, help="of asking, for each number of callers")
    args = parser.parse_args()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * _MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for number in range(args.nodes):
            cluster.add_node(num_cpus=1, resources={f"node{number}": 1000}, object_store_memory=150 * _MIB)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        ids = {name: node["NodeID"] for node in ray.nodes() for name in node["Resources"] if name.startswith("node")}
        names = [f"node{number}" for number in range(args.nodes)]
        server = ray.remote(WeightServer).options(num_cpus=0, resources={names[0]: 1}).remote()
        learner = Learner.options(resources={names[0]: 1}).remote()
        askers = [Asker.options(resources={names[i % len(names)]: 1}).remote() for i in range(args.askers)]
        ray.get([asker.closed.remote(server, 1, 0.1) for asker in askers])
        say(f"{args.nodes} nodes are there")
        told: dict[str, Any] = {"nodes": args.nodes, "actors": args.nodes * args.actors, "mib": args.mib}
        told["asks"] = asks(server, askers, args.callers, args.seconds)
        for asker in askers:
            ray.kill(asker)
        pullers = {
            ids[name]: [Puller.options(resources={name: 1}).remote(server) for _ in range(args.actors)]
            for name in names
        }
        ray.get([actor.pull.remote() for actors in pullers.values() for actor in actors])
        say("all that pull are there")
        told["spread"] = spread(server, learner, pullers, Stores(cluster.address), args.mib, args.rounds)
        print(json.dumps(told, indent=2))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
