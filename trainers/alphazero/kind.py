"""Self-play as a kind of run."""

from __future__ import annotations

from selfplay.contract import GameSpec
from selfplay.environments import registry
from trainers.alphazero.config import RunConfig, incompatible
from trainers.alphazero.state import State
from trainers.alphazero.status import Status, Summary
from trainers.run.kind import RunKind, Start


def _first_status(config: RunConfig, env_id: str, out: str, activity: str) -> Status:
    return Status(config.name, env_id, out, "", activity=activity, total_s=0.0)


def _preload() -> None:
    import trainers.alphazero.loop  # noqa: F401


def _run(config: RunConfig, spec: GameSpec, start: Start) -> Summary:
    from trainers.alphazero.actors import Crew
    from trainers.alphazero.loop import Loop
    from trainers.alphazero.sizing import size
    from trainers.alphazero.status_tracker import Watch
    from trainers.run.run_folder import RunFolder

    folder = RunFolder(start.out, config, KIND, start.lease)  # as whoever held it before has left it
    crew = Crew(config, spec, folder, start.lease.epoch, size(config, start.joined), start.place)
    watch = Watch(config, spec, folder, crew.sizing.sentence(config), crew.sizing.cores, start.on_status)
    try:
        return Loop(config, folder, crew, watch, start.stop).run()
    finally:
        watch.close()
        crew.dismiss()


def _score(status: Status) -> float | None:
    """Points against the hardest fixed opponent."""
    fixed = [row.score for row in status.strength if not row.opponent.startswith("version")]
    return fixed[-1] if fixed else None


def _in_brief(config: RunConfig) -> tuple[str, str]:
    return f"{config.net.channels}x{config.net.blocks}", f"search, {config.search.simulations} simulations"


KIND: RunKind[State] = RunKind(
    name="self-play",
    section="env",
    environment="game",
    spec=GameSpec,
    config=RunConfig,
    state=State,
    find=registry.find,
    refuse=lambda config, spec: None,
    incompatible=incompatible,
    first_status=_first_status,
    preload=_preload,
    run=_run,
    in_brief=_in_brief,
    rate="positions_per_s",
    lost=("lost_games", lambda status: status.lost.count),
    score=_score,
    for_trial=lambda config, cores: [f"selfplay.actors={cores}"],
)
