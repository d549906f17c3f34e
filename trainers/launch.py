"""Starts a run: takes its folder, starts Ray, runs the loop of its kind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfplay.commands import command
from selfplay.contract import EnvSpec
from selfplay.errors import UserError
from selfplay.io import run_files, storage
from selfplay.store import Fenced, Lease, OutOfOrder, Taken, acquire
from trainers.kinds import kind_of
from trainers.run import event_log, ray_session
from trainers.run.failure_causes import cause_of
from trainers.run.kind import RunKind, RunSummary, Start
from trainers.run.placement import reserve
from trainers.run.run_folder import RunFolder
from trainers.run.settings import Experiment
from trainers.run.status_publisher import Beacon


def run(
    config: Experiment,
    spec: EnvSpec,
    out: str,
    address: str | None,
    on_status: Callable[[Any], None],
    stop: threading.Event,
    words: ray_session.LastWords | None = None,
) -> RunSummary:
    """Runs until the time is over or `stop` is set; everything played or sampled is archived by then.

    out: URI of the run's folder; one that exists is continued. on_status: is given a `RunStatus` of the run's kind.
    words: for when Ray dies under the run. Raises `UserError` for what only a person can mend.
    """
    event_log.configure()
    kind, joined = kind_of(config), bool(address)
    kind.refuse(config, spec)
    uri = RunFolder(out, config, kind).uri  # refuses a folder of another run before anything is written

    def wait(word: str) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        on_status(kind.first_status(config, spec.id, out, word))

    with (
        acquire(uri, command("run", config.name), wait) as lease,
        _swept(lease),
        _loading(kind),
        ray_session.ray_session(address, words),
        Beacon(uri, kind, on_status, lease, metrics=joined) as tell,
        _in_words(lease),
    ):
        # Ray has taken SIGTERM for itself: whoever hears of a status takes it back.
        tell(kind.first_status(config, spec.id, out, "loading torch"))
        place = reserve(kind.learner_device(config), lambda word: tell(kind.first_status(config, spec.id, out, word)))
        summary: RunSummary = kind.run(config, spec, Start(out, lease, joined, place, tell, stop))
        return summary


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


@contextlib.contextmanager
def _loading(kind: RunKind[Any]) -> Iterator[None]:
    """Imports the loop, and torch with it, in the background: Ray needs seconds to start, most of them waiting."""

    def load() -> None:
        with contextlib.suppress(Exception):  # whoever imports it again is told
            kind.preload()

    thread = threading.Thread(target=load, name="imports")
    thread.start()
    try:
        yield
    finally:
        thread.join()
