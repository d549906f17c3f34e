"""Starts a run: takes its folder, starts Ray, runs the loop (`trainers.alphazero.loop`, `trainers.reasoning.loop`)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.commands import command
from selfplay.contract import EnvSpec, GameSpec, TaskSpec
from selfplay.errors import UserError
from selfplay.io import run_files, storage
from selfplay.store import Fenced, Lease, OutOfOrder, Taken, acquire
from trainers.alphazero.config import RunConfig
from trainers.alphazero.status import Summary
from trainers.reasoning.config import ReasoningConfig, refuse_unfit
from trainers.reasoning.status import ReasoningSummary
from trainers.run import ray_session
from trainers.run.failure_causes import cause_of
from trainers.run.kinds import AnyConfig, AnySummary, first_status
from trainers.run.placement import Place, reserve
from trainers.run.run_folder import RunFolder
from trainers.run.run_state import ReasoningState, State
from trainers.run.status_publisher import Beacon


@dataclass(frozen=True)
class _Start:
    """What the loop of a run begins with, once Ray is there. joined: whether Ray is somebody else's."""

    out: str
    lease: Lease
    joined: bool
    place: Place
    on_status: Callable[[Any], None]
    stop: threading.Event


def run(
    config: AnyConfig,
    spec: EnvSpec,
    out: str,
    address: str | None,
    on_status: Callable[[Any], None],
    stop: threading.Event,
    words: ray_session.LastWords | None = None,
) -> AnySummary:
    """Runs until the time is over or `stop` is set; everything played or sampled is archived by then.

    out: URI of the run's folder; one that exists is continued. on_status: is given an `AnyStatus` of the run's kind.
    words: for when Ray dies under the run. Raises `UserError` for what only a person can mend.
    """
    if isinstance(config, ReasoningConfig) and isinstance(spec, TaskSpec):
        refuse_unfit(config, spec)
    play, joined = isinstance(config, RunConfig), bool(address)
    state: Any = State if play else ReasoningState
    uri = RunFolder(out, config, state).uri  # refuses a folder of another run before anything is written

    def wait(word: str) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        on_status(first_status(config, spec.id, out, word))

    with (
        acquire(uri, command("run", config.name), wait) as lease,
        _swept(lease),
        _loading(play),
        ray_session.ray_session(address, words),
        Beacon(uri, on_status, lease, metrics=joined) as tell,
        _in_words(lease),
    ):
        # Ray has taken SIGTERM for itself: whoever hears of a status takes it back.
        tell(first_status(config, spec.id, out, "loading torch"))
        place = reserve(config.learner.device, lambda word: tell(first_status(config, spec.id, out, word)))
        start = _Start(out, lease, joined, place, tell, stop)
        if isinstance(config, RunConfig):
            assert isinstance(spec, GameSpec)
            return _play(config, spec, start)
        assert isinstance(spec, TaskSpec)
        return _reason(config, spec, start)


@contextlib.contextmanager
def _in_words(lease: Lease) -> Iterator[None]:
    """What ended the run, as the error that it was before Ray wrapped it; of a folder that is gone, that it is."""
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        if isinstance(cause, Fenced):
            raise UserError(f"{lease.run_uri} was taken over by another driver; this one has stopped") from None
        if isinstance(cause, Taken | OutOfOrder):
            raise UserError(
                f"another driver archives the same run in the same corpus ({cause}). Is {lease.run_uri} a copy of a "
                "run's folder, or was it copied, and both were gone on with? Only one of them can be: go on with that "
                "one again, and give the other copy up"
            ) from None
        if not storage.is_remote(lease.run_uri):
            lease.lost()  # raises where the folder is gone: whatever else failed then, it was for that
        if isinstance(cause, UserError):
            raise cause from None
        raise cause from (error if cause is not error else error.__cause__)


@contextlib.contextmanager
def _swept(lease: Lease) -> Iterator[None]:
    """Where a run's folder has vanished, actors may have begun another in its place: that is removed."""
    try:
        yield
    finally:
        if lease.vanished.is_set() and not storage.is_remote(lease.run_uri):
            sweep(Path(lease.run_uri), lease.seen)


def sweep(root: Path, seen: float) -> None:
    """Removes what actors of a run wrote below `root` after its folder had vanished, and folders empty by that.

    seen: when the folder was there last, seconds since 1970. What is older, or has a name that no run gives, is
    somebody else's and stays, and so does all of a folder in which another run has begun.
    """
    begun = (run_files.CONFIG_FILE, run_files.RUN_FILE, "corpus/episodes/_delta_log")
    if any((root / name).exists() for name in begun):
        return
    for folder, _, names in os.walk(root, topdown=False):
        mine = [path for path in (Path(folder, name) for name in names) if run_files.is_ours(path.relative_to(root))]
        with contextlib.suppress(OSError):
            for path in mine:
                if path.stat().st_mtime > seen:
                    path.unlink()
            if mine or Path(folder) == root or run_files.is_ours(Path(folder).relative_to(root)):
                os.rmdir(folder)


def _play(config: RunConfig, spec: GameSpec, start: _Start) -> Summary:
    from trainers.alphazero.actors import Crew
    from trainers.alphazero.loop import Loop
    from trainers.alphazero.status_tracker import Watch

    folder = RunFolder(start.out, config, State, start.lease)  # as whoever held it before has left it
    crew = Crew(config, spec, folder, start.lease.epoch, ray_session.size(config, start.joined), start.place)
    watch = Watch(config, spec, folder, crew.sizing.sentence(config), crew.sizing.cores, start.on_status)
    try:
        return Loop(config, folder, crew, watch, start.stop).run()
    finally:
        watch.close()
        crew.dismiss()


def _reason(config: ReasoningConfig, spec: TaskSpec, start: _Start) -> ReasoningSummary:
    from trainers.reasoning.actors import ReasoningCrew, size
    from trainers.reasoning.loop import Course
    from trainers.reasoning.status_tracker import ReasoningWatch

    folder = RunFolder(start.out, config, ReasoningState, start.lease)
    crew = ReasoningCrew(config, spec, folder, start.lease.epoch, size(config, start.joined), start.place)
    sentence = crew.sizing.sentence(config, crew.parameters)
    cores = crew.sizing.cores
    watch = ReasoningWatch(config, crew.task.spec, folder, sentence, cores, crew.parameters, start.on_status)
    try:
        return Course(config, folder, crew, watch, start.stop).run()
    finally:
        watch.close()
        crew.dismiss()


@contextlib.contextmanager
def _loading(play: bool) -> Iterator[None]:
    """Imports the loop, and torch with it, in the background: Ray needs seconds to start, most of them waiting."""

    def load() -> None:
        with contextlib.suppress(Exception):  # whoever imports it again is told
            if play:
                import trainers.alphazero.loop  # noqa: F401
            else:
                import trainers.reasoning.loop  # noqa: F401

    thread = threading.Thread(target=load, name="imports")
    thread.start()
    try:
        yield
    finally:
        thread.join()
