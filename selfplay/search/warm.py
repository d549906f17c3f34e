"""Compiles the search once, so that the first run on a machine begins at once: python -m selfplay.search.warm"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from selfplay.compilation import cache_folder
from selfplay.environments.game import Game, load, spec_from_string
from selfplay.search.batched import Array, BatchedSearch
from selfplay.search.config import SearchConfig


def main() -> None:
    """Does nothing, in a moment, where they are compiled already."""
    done = cache_folder(Path(__file__).parent) / "complete"
    if done.exists():
        return
    began = time.perf_counter()
    print("compiling the search (once; under a minute) …", end=" ", flush=True)
    for name in ("tic_tac_toe", "hex(board_size=2)"):  # by compiled rules, and by OpenSpiel's
        game = load(spec_from_string(f"openspiel:{name}"))
        for algorithm in ("gumbel", "puct"):
            _search(game, algorithm)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
    print(f"{time.perf_counter() - began:.0f} s")


def _search(game: Game, algorithm: str) -> None:
    def evaluate(inputs: Array) -> tuple[Array, Array]:
        return np.zeros((len(inputs), game.num_actions), np.float32), np.zeros(len(inputs), np.float32)

    search = BatchedSearch(game, evaluate, SearchConfig(algorithm=algorithm), 2, 4, 100)
    state = game.new_initial_state()
    search.start(0, state, 4, np.zeros(len(state.legal_actions())))
    while not search.tick():
        pass
    search.result(0)


if __name__ == "__main__":
    sys.exit(main())
