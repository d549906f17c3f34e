"""What a run of self-play must remember beside net, optimiser and corpus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainers.run.run_state import RunState


@dataclass
class State(RunState):
    """What a run must remember beside net, optimiser and corpus.

    matches: results of matches, as (version, opponent, wins, draws, losses, cut, elapsed_s, simulations) mappings.
    exact: results against exact play, as (version, label, mistakes, positions) mappings; see
      `trainers.alphazero.exact_results`.
    lost_games, lost_plies: games that died with their process.
    games_in_flight, plies_in_flight: not sealed when this was saved; lost, if nothing was saved after it.
    """

    matches: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)
    lost_games: int = 0
    lost_plies: int = 0
    games_in_flight: int = 0
    plies_in_flight: int = 0

    def resumed(self) -> None:
        """What was under way when this was saved is lost."""
        self.lost_games += self.games_in_flight
        self.lost_plies += self.plies_in_flight
        self.games_in_flight = self.plies_in_flight = 0
