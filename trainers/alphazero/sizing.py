"""How many players a run has on its machine or cluster."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.errors import UserError
from trainers.alphazero.config import RunConfig
from trainers.run import placement


@dataclass(frozen=True)
class Sizing:
    """What a run uses. players: self-play processes. gpus: of the machines, 0 for CPU only."""

    players: int
    cores: int
    gpus: int
    joined: bool

    def sentence(self, config: RunConfig) -> str:
        where = "a Ray cluster" if self.joined else "this machine"
        device = f"{self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else "no GPU"
        games = config.selfplay.games
        return (
            f"{where}: {self.cores} cores, {device}; {self.players} self-play "
            f"process{'es' * (self.players != 1)} of {games} games, "
            f"{max(1, config.learner.learners)} learner{'s' * (config.learner.learners > 1)}"
        )


def size(config: RunConfig, joined: bool) -> Sizing:
    """How many players: as configured, or one a core. Raises `UserError` where a GPU was demanded and there is none."""
    cores, gpus = max(1, placement.cores()), placement.gpus()
    for name, device in (("selfplay.device", config.selfplay.device), ("learner.device", config.learner.device)):
        if device == "cuda" and not gpus:
            raise UserError(f"{name} = cuda, but Ray sees no GPU here; say {name}=auto or run where there is one")
    wanted = config.selfplay.actors
    players = cores if wanted == "auto" else wanted
    return Sizing(1 if config.run.deterministic and wanted == "auto" else players, cores, gpus, joined)
