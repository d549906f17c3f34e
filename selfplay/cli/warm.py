"""Compiles what is compiled at first use, once, as the last step of an installation: `python -m selfplay.cli.warm`.

numba keeps the result beside the sources (`__pycache__`), so that the first run starts playing at once.
"""

from __future__ import annotations

import numpy as np

from selfplay import registry
from selfplay.game import load
from selfplay.search import BatchedSearch, SearchConfig


def search_kernels() -> None:
    """One small search of each kind, with and without noise."""
    game = load(registry.find("tic_tac_toe-v0"))

    def evaluate(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(batch), game.num_actions), np.float32), np.zeros(len(batch), np.float32)

    for algorithm in ("gumbel", "puct"):
        search = BatchedSearch(game, evaluate, SearchConfig(algorithm=algorithm), slots=2)
        for slot, noise in enumerate((None, np.full(game.num_actions, 0.1, np.float32))):
            search.start(slot, game.new_initial_state(), 8, noise=noise)
        left = 2
        while left:
            left -= len(search.tick())
        search.result(0)


def exact_solvers() -> None:
    """The solvers that evaluation asks, on a position near the end."""
    for spec in registry.all_specs():
        if spec.exact is None:
            continue
        solve = spec.exact()
        state = load(spec).new_initial_state()
        rng = np.random.default_rng(0)
        while not state.is_terminal():
            last = state.clone()
            state.apply_action(int(rng.choice(state.legal_actions())))
        solve(last)


if __name__ == "__main__":
    search_kernels()
    exact_solvers()
