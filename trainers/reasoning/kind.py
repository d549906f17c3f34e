"""Reasoning as a kind of run."""

from __future__ import annotations

from selfplay.contract import EnvSpec, TaskSpec
from selfplay.environments import registry
from trainers.reasoning.config import DEVELOPMENT, ReasoningConfig, incompatible, refuse_unfit
from trainers.reasoning.state import ReasoningState
from trainers.reasoning.status import ReasoningStatus, ReasoningSummary
from trainers.run.kind import RunKind, Start


def _first_status(config: ReasoningConfig, env_id: str, out: str, activity: str) -> ReasoningStatus:
    return ReasoningStatus(config.name, env_id, out, "", algorithm=config.learner.algorithm, activity=activity)


def _refuse(config: ReasoningConfig, spec: EnvSpec) -> None:
    assert isinstance(spec, TaskSpec)
    refuse_unfit(config, spec)


def _preload() -> None:
    import trainers.reasoning.loop  # noqa: F401


def _run(config: ReasoningConfig, spec: TaskSpec, start: Start) -> ReasoningSummary:
    from trainers.reasoning.actors import ReasoningCrew, size
    from trainers.reasoning.loop import Course
    from trainers.reasoning.status_tracker import ReasoningWatch
    from trainers.run.run_folder import RunFolder

    folder = RunFolder(start.out, config, KIND, start.lease)
    crew = ReasoningCrew(config, spec, folder, start.lease.epoch, size(config, start.joined), start.place)
    sentence = crew.sizing.sentence(config, crew.parameters)
    cores = crew.sizing.cores
    watch = ReasoningWatch(config, crew.task.spec, folder, sentence, cores, crew.parameters, start.on_status)
    try:
        return Course(config, folder, crew, watch, start.stop).run()
    finally:
        watch.close()
        crew.dismiss()


def _score(status: ReasoningStatus) -> float | None:
    """Accuracy on the development split."""
    return status.development


def _for_trial(config: ReasoningConfig, cores: int) -> list[str]:
    measured = config.evaluation.development is not None
    return [f"generation.actors={cores}", *([] if measured else [f"evaluation.development={DEVELOPMENT}"])]


def _in_brief(config: ReasoningConfig) -> tuple[str, str]:
    return config.policy.path or f"{config.policy.hidden}x{config.policy.layers}", config.learner.algorithm


KIND: RunKind[ReasoningState] = RunKind(
    name="reasoning",
    section="task",
    environment="task",
    spec=TaskSpec,
    config=ReasoningConfig,
    state=ReasoningState,
    find=registry.find_task,
    refuse=_refuse,
    incompatible=incompatible,
    first_status=_first_status,
    preload=_preload,
    run=_run,
    in_brief=_in_brief,
    rate="tokens_per_s",
    lost=("lost_episodes", lambda status: status.lost),
    score=_score,
    for_trial=_for_trial,
)
