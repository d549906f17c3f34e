"""Fixed opponents: random play, OpenSpiel's own tree search, exact play. None learns, none keeps anything of a game."""

from __future__ import annotations

import numpy as np
import pyspiel

from selfplay.contract import ExactSolver
from selfplay.environments.game import Game
from selfplay.evaluation.match import Player

#: Exploration constant of `mcts_player`: the one in OpenSpiel's examples. In matches on connect four 1, sqrt(2) and 3
#: scored level with it, within noise (400 games each at 100 rollouts, 100 at 1000).
UCT_C = 2.0


def random_player(seed: int) -> Player:
    """Uniformly random legal moves, from a generator of its own."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))

    def play(states: list[pyspiel.State]) -> list[int]:
        choices = [state.legal_actions() for state in states]
        return [int(legal[rng.integers(len(legal))]) for legal in choices]

    return play


def mcts_player(game: Game, rollouts: int, seed: int, uct_c: float = UCT_C) -> Player:
    """OpenSpiel's C++ `MCTSBot`: UCT with `rollouts` simulations a move, one random playout each.

    It proves wins and losses on the way (MCTS-Solver) and picks its final move by them first, as it plays best.
    A new tree for every move. Same seed and same calls: same moves.
    """
    bot_seed, rollout_seed = (int(x) for x in np.random.SeedSequence(seed).generate_state(2) >> 1)
    evaluator = pyspiel.RandomRolloutEvaluator(n_rollouts=1, seed=rollout_seed)
    bot = pyspiel.MCTSBot(
        game.game,
        evaluator,
        uct_c=uct_c,
        max_simulations=rollouts,
        max_memory_mb=1000,
        solve=True,
        seed=bot_seed,
        verbose=False,
    )

    def play(states: list[pyspiel.State]) -> list[int]:
        return [int(bot.step(state)) for state in states]

    return play


def exact_player(solver: ExactSolver, seed: int, *, otherwise: Player | None = None) -> Player:
    """A random one among the moves of best exact value; where the solver refuses (`ValueError`), asks `otherwise`."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))

    def one(state: pyspiel.State) -> int:
        try:
            values = solver(state)
        except ValueError:
            if otherwise is None:
                raise
            return otherwise([state])[0]
        best = max(values.values())
        keep = [action for action, value in sorted(values.items()) if value == best]
        return int(keep[rng.integers(len(keep))])

    return lambda states: [one(state) for state in states]
