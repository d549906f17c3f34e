"""Search: CPU time a simulation beyond the net, by game and way. Run: python tests/benchmarks/bench_search.py

The whole of self-play is measured, from the first random move to the sealed episode, with a net that answers at once.
"compiled": by our compiled rules where there are some; "OpenSpiel": by its rules alone. Ways take turns in one process
and the smallest CPU time of each counts, so that other jobs disturb ratios little.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from selfplay.environments import registry
from selfplay.environments.game import Game, load
from selfplay.episode import Provenance
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig, rules

Array = np.ndarray


class CheapNet:
    """Logits and values from one product with fixed random numbers; counts the CPU seconds that it takes."""

    def __init__(self, game: Game) -> None:
        self._weights = np.random.default_rng(0).normal(size=(game.encoder.size, game.num_actions + 1))
        self._weights = self._weights.astype(np.float32)
        self.seconds = 0.0

    def __call__(self, x: Array) -> tuple[Array, Array]:
        began = time.thread_time()
        out = x.reshape(len(x), -1) @ self._weights
        logits, values = np.ascontiguousarray(out[:, 1:]), np.tanh(out[:, 0])
        self.seconds += time.thread_time() - began
        return logits, values


def generator(game: Game, algorithm: str, slots: int, simulations: int) -> Generator:
    config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
    settings = PlaySettings(slots=slots, simulations=simulations, ply_limit=game.spec.ply_limit)
    provenance = Provenance("bench", game.spec.id, game.spec.version, "", "", "", "", game.spec.licence)
    return Generator(game, CheapNet(game), config, settings, provenance, "bench", 1, 0, np.random.default_rng(0))


def measure(names: list[str], algorithm: str, slots: int, simulations: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a simulation beyond the net, by game and way."""
    table: dict[str, dict[str, float]] = {}
    for name in names:
        game = load(registry.find(name))
        ways = {"OpenSpiel": generator(game, algorithm, slots, simulations)}
        ways["OpenSpiel"].search._rules = rules.NONE
        if rules.rules_of(game):
            ways["compiled"] = generator(game, algorithm, slots, simulations)
        best = table[name] = dict.fromkeys(ways, float("inf"))
        for version in range(rounds):
            for way, one in ways.items():
                one.set_policy(Policy("bench", version, f"{version:032x}"))  # forgets the cache, as new weights do
                net, stats = one.search.evaluate, one.search.stats
                net.seconds, made = 0.0, stats.simulations
                began = time.thread_time()
                one.play(lambda _, decisions: decisions >= 4 * slots)
                spent = time.thread_time() - began - net.seconds
                made = stats.simulations - made
                if version:  # the first round also compiles
                    best[way] = min(best[way], 1e6 * spent / made)
        if "compiled" in best:
            best["ratio"] = best["OpenSpiel"] / best["compiled"]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", nargs="+", default=["connect_four", "tic_tac_toe", "othello", "breakthrough"])
    parser.add_argument("--algorithm", choices=["gumbel", "puct"], default="gumbel")
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    table = measure(args.games, args.algorithm, args.slots, args.simulations, args.rounds)
    if args.json:
        print(json.dumps(table))
        return
    for name, best in table.items():
        print(f"{name:16} " + "  ".join(f"{way} {value:6.2f}" for way, value in best.items()))


if __name__ == "__main__":
    main()
