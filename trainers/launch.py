"""Starts a run: who holds its folder, then Ray, then the loop (`trainers.alphazero`)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from ray.exceptions import RayTaskError

from selfplay.contract import GameSpec
from selfplay.errors import UserError
from selfplay.store import Fenced, acquire
from trainers import cluster
from trainers.config import RunConfig
from trainers.run_folder import RunFolder, State
from trainers.status import Status, Summary


def run(
    config: RunConfig,
    spec: GameSpec,
    out: str,
    address: str | None,
    on_status: Callable[[Status], None],
    stop: threading.Event,
) -> Summary:
    """Runs until the time is over or `stop` is set; everything played is archived by then.

    out: URI of the run's folder; one that exists is continued. Raises `UserError` for what only a person can mend.
    """
    uri = RunFolder(out, config, State).uri  # refuses a folder of another run before anything is written
    with acquire(uri, f"selfplay run {config.name}") as lease, _loading():
        with cluster.ray_session(address):
            # Ray has taken SIGTERM for itself: whoever hears of a status takes it back.
            on_status(Status(config.name, spec.id, out, "", activity="loading torch", total_s=0.0))
            from trainers.alphazero import Loop
            from trainers.crew import Crew
            from trainers.watch import Watch

            folder = RunFolder(out, config, State)  # as whoever held it before has left it
            crew = Crew(config, spec, folder, lease.epoch, cluster.size(config, bool(address)))
            watch = Watch(config, spec, folder, crew.sizing.sentence(config), on_status)
            try:
                return Loop(config, folder, crew, watch, stop).run()
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, Fenced):
                    raise UserError(f"{uri} was taken over by another driver; this one has stopped") from None
                raise (cause if isinstance(cause, UserError) else error) from None
            finally:
                watch.close()
                crew.dismiss()


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Imports the loop, and torch with it, in the background: Ray needs seconds to start, most of them waiting."""

    def load() -> None:
        with contextlib.suppress(Exception):  # whoever imports it again is told
            import trainers.alphazero  # noqa: F401

    thread = threading.Thread(target=load, name="imports")
    thread.start()
    try:
        yield
    finally:
        thread.join()
