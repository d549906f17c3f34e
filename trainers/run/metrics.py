"""All scalars of a run leave through one writer: TensorBoard files and wandb.

wandb runs offline unless the user has logged in. Its run id is kept in the run's folder; resuming an offline run starts
a new local folder under the same id, which `wandb sync` joins, so the step is always given explicitly.
"""

from __future__ import annotations

import contextlib
import math
import netrc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from selfplay import surroundings
from selfplay.io import scratch, storage
from trainers.run.run_folder import RunFolder
from trainers.run.settings import Experiment

ID_NAME = "wandb_id"
_CLOSE_S = 30.0
#: A curve has so many points of each session as they come; then one for each ten-thousandth by which its step grows.
POINTS = 10_000

Scalars = tuple[int, Mapping[str, float]]
#: A sample as people read it: prompt, answer, reward (None: unverifiable), reason, difficulty, episode id.
Row = tuple[str, str, float | None, str, float, str]
_COLUMNS = ["prompt", "answer", "reward", "reason", "difficulty", "episode"]


class ScalarWriter:
    """Writes scalars of one run; neither a missing nor a failing tracker stops the run, nor does a slow one delay it.

    Trackers are loaded and fed in a thread of their own, from the first scalars on.

    run_dir: a local folder; `tensorboard/`, `wandb/` and the id of the wandb run lie in it.
    run_id: of our run; the id of a new wandb run, as an id is unique there.
    config: the resolved configuration, plain values.
    tell: is told once, in a sentence, when a tracker is given up; by whoever writes or closes next.
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
        folder = Path(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / ID_NAME
        before = wandb_safe(kept.read_text(errors="ignore").strip()) if kept.exists() else ""
        self.wandb_id = wandb_id or before or wandb_safe(run_id)
        kept.write_text(self.wandb_id)
        self._tell = tell
        self._step = -1
        self._points: dict[frozenset[str], tuple[int, int]] = {}  # names -> points of their curves, step of the last
        self._queue: SimpleQueue[Scalars | tuple[int, list[Row]] | None] = SimpleQueue()
        self._given_up: SimpleQueue[str] = SimpleQueue()
        self._makers: dict[str, Callable[[], _Tracker]] = {
            "TensorBoard": lambda: _Board(folder / "tensorboard"),
            "wandb": lambda: _Wandb(folder, self.wandb_id, run_id, config),
        }
        self._thread: threading.Thread | None = None

    @classmethod
    def of_run(cls, folder: RunFolder[Any], config: Experiment, tell: Callable[[str], None]) -> ScalarWriter:
        """Writes into the run's folder, or one of this machine where that is remote; the run remembers wandb's id."""
        place = scratch.place("scalars", folder.run_id) if storage.is_remote(folder.uri) else folder.uri
        writer = cls(place, folder.run_id, config.model_dump(mode="json"), tell, folder.state.wandb_id)
        folder.state.wandb_id = writer.wandb_id
        return writer

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Has `{"learner/policy_loss": 1.2, …}` written at `step`, which never falls; leaves out what is not finite.

        step: positions archived so far, the one axis that survives restarts.
        """
        self._step = max(step, self._step)
        if self._crowded(frozenset(scalars)):
            return self._pass_on()
        finite = {name: float(value) for name, value in scalars.items() if math.isfinite(value)}
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="scalars", daemon=True)
            self._thread.start()
        if finite:
            self._queue.put((self._step, finite))
        self._pass_on()

    def _crowded(self, names: frozenset[str]) -> bool:
        """Whether a curve has so many points that this one would not be seen. So files of years stay small, too."""
        count, last = self._points.get(names, (0, 0))
        if count >= POINTS and self._step < last * (1 + 1 / POINTS):
            return True
        self._points[names] = (count + 1, self._step)
        return False

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        """Has newest samples written at `step`, as a table (wandb) and as text (TensorBoard)."""
        if rows and self._thread is not None:
            self._step = max(step, self._step)
            self._queue.put((self._step, list(rows)))

    def close(self) -> None:
        """Waits until all is written; safe to call twice."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_S)
            self._thread = None
        self._pass_on()

    def _pass_on(self) -> None:
        while not self._given_up.empty():
            self._tell(self._given_up.get())

    def _work(self) -> None:
        trackers: dict[str, _Tracker] = {}
        for name, make in self._makers.items():
            with self._guarded(name, trackers):
                trackers[name] = make()
        while (item := self._queue.get()) is not None:
            for name in list(trackers):
                with self._guarded(name, trackers):
                    step, what = item
                    if isinstance(what, list):
                        trackers[name].samples(step, what)
                    else:
                        trackers[name].write(step, what)
        for name in list(trackers):
            with self._guarded(name, trackers):
                trackers[name].close()

    @contextlib.contextmanager
    def _guarded(self, name: str, trackers: dict[str, _Tracker]) -> Iterator[None]:
        """Gives a tracker up that fails: none may ever end a run."""
        try:
            yield
        except Exception as error:
            trackers.pop(name, None)
            lines = str(error).strip().splitlines()
            reason = lines[0][:200] if lines else type(error).__name__
            self._given_up.put(f"scalars no longer go to {name}: {reason}")


class _Tracker(Protocol):
    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def samples(self, step: int, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


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

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        told = ["\n".join(f"{name}: {value}" for name, value in zip(_COLUMNS, row, strict=True)) for row in rows]
        indented = ["\n".join("    " + line for line in text.splitlines()) for text in told]
        tensor = TensorProto(dtype=DT_STRING, string_val=["\n\n".join(indented).encode()])
        summary = Summary(value=[Summary.Value(tag="samples", metadata=about, tensor=tensor)])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

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


class _Wandb:
    """A wandb run; none where the user has disabled wandb."""

    def __init__(self, folder: Path, wandb_id: str, name: str, config: Mapping[str, Any]) -> None:
        self._run: Any = None
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        if mode == "disabled":
            return
        surroundings.refuse_settings(*surroundings.WANDB_FILES)
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, init_timeout=10
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "selfplay-factory",
            id=wandb_id,
            name=name,
            dir=str(folder),
            config=dict(config),
            mode=mode,  # type: ignore[arg-type]
            resume="allow" if mode == "online" else None,
            settings=settings,
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.log(dict(scalars), step=step)

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        if self._run is not None:
            import wandb

            table = wandb.Table(columns=_COLUMNS, data=[list(row) for row in rows])
            self._run.log({"samples": table}, step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
