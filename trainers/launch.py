"""Starts a run: who holds its folder, then Ray, then the loop (`trainers.alphazero`, `trainers.reasoning`)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from selfplay.contract import EnvSpec, GameSpec, TaskSpec
from selfplay.errors import UserError
from selfplay.store import Fenced, acquire
from trainers import cluster
from trainers.config import RunConfig
from trainers.experiment import AnyConfig, AnySummary, first_status
from trainers.reasoning_config import ReasoningConfig
from trainers.reasoning_status import ReasoningStatus, ReasoningSummary
from trainers.run_folder import ReasoningState, RunFolder, State
from trainers.status import Status, Summary


def run(
    config: AnyConfig,
    spec: EnvSpec,
    out: str,
    address: str | None,
    on_status: Callable[[Any], None],
    stop: threading.Event,
) -> AnySummary:
    """Runs until the time is over or `stop` is set; everything played or sampled is archived by then.

    out: URI of the run's folder; one that exists is continued. on_status: is given an `AnyStatus` of the run's kind.
    Raises `UserError` for what only a person can mend.
    """
    play = isinstance(config, RunConfig)
    state: Any = State if play else ReasoningState
    uri = RunFolder(out, config, state).uri  # refuses a folder of another run before anything is written
    with acquire(uri, f"selfplay run {config.name}") as lease, _loading(play):
        with cluster.ray_session(address):
            # Ray has taken SIGTERM for itself: whoever hears of a status takes it back.
            on_status(first_status(config, spec.id, out, "loading torch"))
            try:
                if isinstance(config, RunConfig):
                    assert isinstance(spec, GameSpec)
                    return _play(config, spec, out, lease.epoch, bool(address), on_status, stop)
                assert isinstance(spec, TaskSpec)
                return _reason(config, spec, out, lease.epoch, bool(address), on_status, stop)
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, Fenced):
                    raise UserError(f"{uri} was taken over by another driver; this one has stopped") from None
                raise (cause if isinstance(cause, UserError) else error) from None
            except RayActorError as error:
                raise cluster.told(error) from None


def _play(
    config: RunConfig,
    spec: GameSpec,
    out: str,
    epoch: int,
    joined: bool,
    on_status: Callable[[Status], None],
    stop: threading.Event,
) -> Summary:
    from trainers.alphazero import Loop
    from trainers.crew import Crew
    from trainers.watch import Watch

    folder = RunFolder(out, config, State)  # as whoever held it before has left it
    crew = Crew(config, spec, folder, epoch, cluster.size(config, joined))
    watch = Watch(config, spec, folder, crew.sizing.sentence(config), on_status)
    try:
        return Loop(config, folder, crew, watch, stop).run()
    finally:
        watch.close()
        crew.dismiss()


def _reason(
    config: ReasoningConfig,
    spec: TaskSpec,
    out: str,
    epoch: int,
    joined: bool,
    on_status: Callable[[ReasoningStatus], None],
    stop: threading.Event,
) -> ReasoningSummary:
    from trainers.reasoning import Course
    from trainers.reasoning_crew import ReasoningCrew, size
    from trainers.reasoning_watch import ReasoningWatch

    folder = RunFolder(out, config, ReasoningState)
    crew = ReasoningCrew(config, spec, folder, epoch, size(config, joined))
    sentence = crew.sizing.sentence(config, crew.parameters)
    watch = ReasoningWatch(config, spec, folder, sentence, crew.parameters, on_status)
    try:
        return Course(config, folder, crew, watch, stop).run()
    finally:
        watch.close()
        crew.dismiss()


@contextlib.contextmanager
def _loading(play: bool) -> Iterator[None]:
    """Imports the loop, and torch with it, in the background: Ray needs seconds to start, most of them waiting."""

    def load() -> None:
        with contextlib.suppress(Exception):  # whoever imports it again is told
            if play:
                import trainers.alphazero  # noqa: F401
            else:
                import trainers.reasoning  # noqa: F401

    thread = threading.Thread(target=load, name="imports")
    thread.start()
    try:
        yield
    finally:
        thread.join()
