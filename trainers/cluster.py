"""Starting Ray or joining it, and sizing a run to the machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import ray
from ray.exceptions import RayActorError, RayError

from selfplay.errors import UserError
from trainers import placement, ray_guard
from trainers.config import RunConfig

_OBJECT_STORE_BYTES = 512 * 2**20
_KNOCK_S = 10.0


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


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Ray for the time of a run: this machine's own, or the cluster at `address`. Quiet; nothing is left behind."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as leaving:
        try:
            if address:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="selfplay")
            else:
                leaving.callback(_guard().communicate, b"bye\n")
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    namespace="selfplay",
                )
        except Exception as error:  # Ray says that it did not come up with a plain one
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if "Failed to connect" in reason and os.environ.get("RAY_AUTH_MODE") != "token":
                reason += "; a cluster that asks for a token needs RAY_AUTH_MODE=token here, and its ~/.ray/auth_token"
            raise UserError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from None
        leaving.callback(ray.shutdown)
        yield


def _knock(address: str) -> None:
    """Raises `ConnectionError` where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # "auto", or a scheme of Ray's
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"nobody answers there ({error})") from None


def _guard() -> subprocess.Popen[bytes]:
    """Ends our Ray when this process is gone; see `trainers.ray_guard`."""
    command = [sys.executable, "-I", "-S", ray_guard.__file__, str(os.getpid())]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)


def size(config: RunConfig, joined: bool) -> Sizing:
    """How many players: as configured, or one a core. Raises `UserError` where a GPU was demanded and there is none."""
    cores, gpus = max(1, placement.cores()), placement.gpus()
    for name, device in (("selfplay.device", config.selfplay.device), ("learner.device", config.learner.device)):
        if device == "cuda" and not gpus:
            raise UserError(f"{name} = cuda, but Ray sees no GPU here; say {name}=auto or run where there is one")
    wanted = config.selfplay.actors
    players = cores if wanted == "auto" else wanted
    return Sizing(1 if config.run.deterministic and wanted == "auto" else players, cores, gpus, joined)


def told(error: RayError) -> Exception:
    """What an actor that could not begin had to say, where it is for people; else the error itself."""
    if not isinstance(error, RayActorError):
        return error
    cause = error.__cause__
    while cause is not None:
        inner = getattr(cause, "cause", None)
        if isinstance(inner, UserError):
            return inner
        cause = cause.__cause__
    name = re.escape(f"{UserError.__module__}.{UserError.__qualname__}")
    said = re.findall(rf"^{name}: (.+)$", str(error), re.MULTILINE) if error.actor_init_failed else []
    return UserError(said[-1]) if said else error  # Ray keeps only the text of what a constructor raised
