"""All scalars of a run leave through one writer: TensorBoard files and wandb.

wandb runs offline unless the user has logged in. Its run id is kept in the run's folder; resuming an offline run starts
a new local folder under the same id, which `wandb sync` joins, so the step is always given explicitly.
"""

from __future__ import annotations

import math
import netrc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ID_NAME = "wandb_id"


class ScalarWriter:
    """Writes scalars of one run; neither a missing nor a failing tracker stops the run.

    run_dir: a local folder; `tensorboard/`, `wandb/` and the id of the wandb run lie in it.
    run_id: of our run; the id of a new wandb run, as an id is unique there.
    config: the resolved configuration, plain values.
    tell: is told once, in a sentence, when a tracker is given up.
    wandb_id: the id of a wandb run to go on with, where `run_dir` is new but the run is not.
    """

    def __init__(
        self,
        run_dir: str | Path,
        run_id: str,
        config: Mapping[str, Any],
        tell: Callable[[str], None] = print,
        wandb_id: str | None = None,
    ) -> None:
        self._folder = Path(run_dir)
        self._tell = tell
        self._folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = None
        self._wandb: Any = None
        self._step = -1
        self.wandb_id = wandb_id or self._kept_id() or wandb_safe(run_id)
        (self._folder / ID_NAME).write_text(self.wandb_id)
        try:
            self._board = _Board(self._folder / "tensorboard")
        except Exception as error:  # a tracker must never end a run
            self._give_up("TensorBoard", error)
        try:
            self._wandb = _start_wandb(self._folder, self.wandb_id, run_id, config)
        except Exception as error:  # as above
            self._give_up("wandb", error)

    def _kept_id(self) -> str | None:
        try:
            return (self._folder / ID_NAME).read_text().strip() or None
        except FileNotFoundError:
            return None

    def _give_up(self, tracker: str, error: Exception) -> None:
        lines = str(error).strip().splitlines()
        self._tell(f"scalars no longer go to {tracker}: {lines[0][:200] if lines else type(error).__name__}")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes `{"learner/policy_loss": 1.2, …}` at `step`, which never falls; leaves out what is not finite.

        step: positions archived so far, the one axis that survives restarts.
        """
        self._step = max(step, self._step)
        finite = {name: float(value) for name, value in scalars.items() if math.isfinite(value)}
        if self._board is not None:
            try:
                self._board.write(self._step, finite)
            except Exception as error:  # as above
                self._board = None
                self._give_up("TensorBoard", error)
        if self._wandb is not None and finite:
            try:
                self._wandb.log(finite, step=self._step)
            except Exception as error:  # as above
                self._wandb = None
                self._give_up("wandb", error)

    def close(self) -> None:
        """Flushes both; safe to call twice."""
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:  # as above
                self._give_up("wandb", error)
            self._wandb = None


class _Board:
    """TensorBoard event files, without importing torch."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder), flush_secs=10)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()


def wandb_safe(run_id: str) -> str:
    """A run id in the characters wandb allows."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in run_id)[:120]


def logged_in() -> bool:
    """Whether the user has given wandb a key, by environment or `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def _start_wandb(folder: Path, wandb_id: str, name: str, config: Mapping[str, Any]) -> Any:
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    if mode == "disabled":
        return None
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, init_timeout=10
    )
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "selfplay-factory",
        id=wandb_id,
        name=name,
        dir=str(folder),
        config=dict(config),
        mode=mode,  # type: ignore[arg-type]
        resume="allow" if mode == "online" else None,
        settings=settings,
    )
