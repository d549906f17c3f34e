"""Starting Ray or joining it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import ray_constants
from ray.job_config import JobConfig

from selfplay import machine
from selfplay.errors import UserError
from trainers.run import ray_guard, ray_temporary_folders
from trainers.run.ray_watch import RayWatch

_OBJECT_STORE_BYTES = 512 * 2**20
_KNOCK_S = 10.0
#: A signal that ends Ray's processes and ours at once is heard here by then.
_SIGNALLED_S = 0.5
#: In what Ray says where its processes were not up in time.
_LATE = "timed out during startup"


@dataclass
class LastWords:
    """What is said where the run cannot go on, and cannot end by itself either, as Ray hangs or ends its process.

    err: descriptor of the person's standard error. advice: the end of the sentence, what is safe and what to do.
    end: says a sentence, gives the terminal back and ends the process with exit code 1; called by another thread.
    guard: the process that speaks where this one has died without a word. stop: is set when the run was asked to end.
    """

    err: int
    advice: str
    end: Callable[[str], None]
    guard: subprocess.Popen[bytes] | None = None
    stop: threading.Event | None = None

    def taken(self) -> None:
        """This process says the last word itself, and the guard is silent. For a signal handler, too."""
        self.tell("said")

    def asked(self) -> None:
        """The run was asked to end. For a signal handler, too."""
        self.tell("asked")

    def tell(self, line: str) -> None:
        """Tells the guard, in a word of `ray_guard`."""
        if self.guard is not None and self.guard.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # the guard has gone, or was told that all is in order
                os.write(self.guard.stdin.fileno(), f"{line}\n".encode())


@contextlib.contextmanager
def ray_session(address: str | None, words: LastWords | None = None) -> Iterator[None]:
    """Ray for the time of a run: this machine's own, or the cluster at `address`. Quiet.

    Of a Ray of our own nothing is left behind; where the run broke, the next run here deletes the logs of that Ray,
    which may say why. words: for when Ray dies under the run. Raises `UserError` where Ray cannot be used.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Threads of a learner that wait for each other must not spin on cores on which others play.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if ray.is_initialized():
        yield
        return
    session: Path | None = None
    with contextlib.ExitStack() as leaving:
        guard = _guard(own=not address, words=words)
        if words is not None:
            words.guard = guard
        leaving.callback(guard.communicate, b"bye\n")
        try:
            if address:
                _knock(address)
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    namespace="selfplay",
                    job_config=_Job(),
                )
            else:
                leaving.enter_context(_on_loopback())
                session = _start()
                ray_temporary_folders.mark(session)
                ray_temporary_folders.delete_dead(session.parent)
        except UserError:
            raise
        except Exception as error:  # Ray says that it did not come up with a plain one
            raise UserError(f"Ray at {address or 'this machine'} cannot be used: {_reason(error)}") from None
        leaving.callback(ray.shutdown)
        if not address:
            _close_token(Path.home() / ".ray" / "auth_token")
        if words is not None and not address:
            leaving.callback(RayWatch(functools.partial(_died, words), words.tell).stop)
            leaving.callback(words.tell, "leaving")
        yield
    if session is not None:
        ray_temporary_folders.delete(session)


class _Job(JobConfig):
    """A job whose workers do not look for modules in the folder in which the command was given.

    Ray puts that folder before Python's own library in its workers, unless it has to unpack one there that the job
    brings along; so it is told that it has.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _start() -> Path:
    """Starts Ray here; a second time where a busy machine had not got round to the first. The folder of its session."""
    for attempt in range(2):
        try:
            context = ray.init(
                address="local",
                _node_ip_address="127.0.0.1",
                num_cpus=machine.cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                namespace="selfplay",
                job_config=_Job(),
            )
            return Path(context.address_info["session_dir"])
        except Exception as error:
            ray.shutdown()
            for pid in ray_guard.members(os.getpid()):  # of what has been started
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if attempt or _LATE not in str(error):
                raise
    raise AssertionError("unreachable")


def _reason(error: Exception) -> str:
    """What Ray says, in one line, and what helps."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Version mismatch"):
        return f"{' '.join(lines)}; install the same versions of Ray and Python here and there"
    if _LATE in lines[0]:
        return "it was started twice and not ready in time; the machine is busy, so try again when it is less so"
    if isinstance(error, OSError) and f"{os.sep}.ray" in str(error.filename or ""):
        home = os.path.expanduser("~")
        return f"it keeps files in the home directory, and {home} cannot be written; set HOME to one that can"
    if "Failed to connect" in lines[0] and os.environ.get("RAY_AUTH_MODE") != "token":
        return f"{lines[0]}; a cluster that asks for a token needs RAY_AUTH_MODE=token here, and its ~/.ray/auth_token"
    return lines[0]


def _died(words: LastWords, name: str) -> None:
    """A process of Ray is gone. The guard ends what is left when this process has ended."""
    if words.stop is not None and words.stop.wait(_SIGNALLED_S):
        words.end(ray_guard.ended_with_ray(words.advice))
    else:
        words.end(ray_guard.ray_died(name, words.advice))


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray started meanwhile listens on loopback alone, and asks for its token there.

    Ray turns the address 127.0.0.1 into an outward one, unless it believes to be on a system where it cannot make
    clusters; its processes take that from the environment, and what is loaded here from a constant. Raises `UserError`
    where the environment turns the token off: then every user of this machine could run programs as this one.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        raise UserError("RAY_AUTH_MODE=disabled would let anyone on this machine run programs as you; unset it")
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    outside = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if outside is not None:
            os.environ[name] = outside


def _close_token(file: Path) -> None:
    """Takes Ray's token from other users' eyes: Ray writes it for all to read. A link or another's file stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)


def _knock(address: str) -> None:
    """Raises `ConnectionError` where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # "auto", or a scheme of Ray's
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"nobody answers there ({error})") from None


def _guard(own: bool, words: LastWords | None) -> subprocess.Popen[bytes]:
    """Ends our own Ray when this process is gone, and says the last word; see `trainers.run.ray_guard`."""
    advice = words.advice if words else ""
    command = [sys.executable, "-I", "-S", ray_guard.__file__, str(os.getpid() if own else 0), advice]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=words.err if words else quiet, start_new_session=True
    )
