"""Tells of a run to whoever is not at its terminal: `status.json` in the run's folder, and Prometheus.

A thread of its own writes the newest status every few seconds: neither a slow bucket nor a missing metrics agent delays
the run. `selfplay top` reads the file; the metrics are those of `METRICS`, with the labels `run` and `recipe`. On a
cluster Ray exports them; a run on one machine writes them to `metrics.prom`, for the textfile collector of Prometheus'
node exporter.

The thread also sees that the run's loop hangs, which the loop itself cannot: the status says when it last turned, and
the display is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from selfplay.io import run_files, sealed, storage
from selfplay.store import Lease
from trainers.run.kind import RunKind, RunStatus

EVERY_S = 5.0
#: A loop that has not turned for so long, while there is work under way, has stalled.
STALLED_S = 30.0
_AT_WORK = ("playing", "warming", "learning", "draining")
METRICS_FILE = "metrics.prom"
SCHEMA = 1
#: Field of a status -> what it means. Counts grow over the whole run, so that Prometheus can take rates of them.
METRICS = {
    "episodes": "Episodes archived.",
    "positions": "Positions archived (games).",
    "tokens": "Tokens sampled (reasoning).",
    "positions_per_s": "Positions searched a second, over the last seconds.",
    "tokens_per_s": "Tokens sampled a second while generating.",
    "cores_at_work": "Cores at work, over the last seconds.",
    "version": "Newest version of the policy.",
    "staleness": "Versions by which the oldest policy at play is behind the newest.",
    "players": "Self-play processes at work.",
    "queued_blocks": "Blocks of episodes that are written and not yet committed.",
    "archive_lag_s": "Age in seconds of the oldest block that is not yet committed.",
    "owed_samples": "Training samples that archived positions still owe.",
    "learner_steps": "Steps of the learner.",
    "rounds": "Rounds learned from (reasoning).",
    "reward": "Mean reward of the newest round.",
    "length": "Mean tokens of an answer in the newest round.",
    "unverifiable": "Share of answers of the newest round that no verifier could judge.",
    "lost_games": "Games lost in flight.",
    "lost_episodes": "Answers that died with a process and were asked for again (reasoning).",
    "policy_loss": "Newest policy loss, nats.",
    "value_loss": "Newest value loss, nats.",
}


_FAILED = "failed_verifications"


class Beacon:
    """Called with every status, as `on_status` is, which it calls.

    uri: the run's folder. lease: of who tells; once another driver has the run, that one does. metrics: whether to hand
    them to Ray, which exports them where its agents run; else they go to a file.
    """

    def __init__(
        self, uri: str, kind: RunKind[Any], on_status: Callable[[Any], None], lease: Lease, metrics: bool
    ) -> None:
        self._uri, self._kind, self._on_status, self._lease = uri, kind, on_status, lease
        self._newest: RunStatus | None = None
        self._turned = time.monotonic()  # when the loop was last heard of
        self._warned = 0.0  # after how many seconds without a turn that was said last
        self._gauges: dict[str, Any] | None = {} if metrics else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="beacon", daemon=True)

    def __call__(self, status: RunStatus) -> None:
        self._newest, self._turned, self._warned = status, time.monotonic(), 0.0
        self._on_status(status)

    def __enter__(self) -> Beacon:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(2 * EVERY_S)

    def _work(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(EVERY_S)
            if self._newest is not None and self._newest.corpus and not self._over():
                with contextlib.suppress(Exception):  # nobody's run ends because it could not be watched
                    self._tell(self._newest)

    def _over(self) -> bool:
        """Whether another driver tells of the run, or it is not there any more."""
        return self._lease.taken.is_set() or self._lease.vanished.is_set()

    def _tell(self, status: RunStatus) -> None:
        silent = time.monotonic() - self._turned
        stalled = silent >= STALLED_S and status.phase in _AT_WORK
        if stalled:
            status = _replaced(status, **{self._kind.rate: 0.0})
            self._warn(status, silent)
        now = datetime.now(UTC)
        about = {"schema": SCHEMA, "kind": self._kind.name, "written_at": now.isoformat(), "pid": os.getpid()}
        about |= {"turned_at": (now - timedelta(seconds=silent)).isoformat(), "stalled": stalled}
        told = {**about, "host": socket.gethostname(), "every_s": EVERY_S, "status": asdict(cast(Any, status))}
        storage.write(storage.join(self._uri, run_files.STATUS_FILE), sealed.dumps(told).encode())
        if self._gauges is not None:
            self._export(status, self._gauges)
        else:
            storage.write(storage.join(self._uri, METRICS_FILE), self._exposed(status).encode())

    def _warn(self, status: RunStatus, silent: float) -> None:
        """Tells the display, now and when the stall is twice as long."""
        if silent >= 2 * self._warned:
            self._warned = silent
            word = f"nothing has moved for {silent:.0f} s: the run waits for its archive or its learner"
            self._on_status(_replaced(status, messages=(*status.messages[-4:], word)))

    def _export(self, status: RunStatus, gauges: dict[str, Any]) -> None:
        from ray.util.metrics import Gauge

        labels = {"run": self._uri, "recipe": status.recipe}
        for name, meaning, more, value in _values(status, self._kind):
            if name not in gauges:
                gauges[name] = Gauge(f"selfplay_{name}", meaning, (*labels, *more))
            gauges[name].set(value, {**labels, **more})

    def _exposed(self, status: RunStatus) -> str:
        """The metrics in Prometheus' text format, under the names that Ray gives them."""
        lines: dict[str, None] = {}
        for name, meaning, more, value in _values(status, self._kind):
            labels = {"run": self._uri, "recipe": status.recipe, **more}
            told = ",".join(f"{label}={json.dumps(text, ensure_ascii=False)}" for label, text in labels.items())
            lines[f"# HELP ray_selfplay_{name} {meaning}"] = None
            lines[f"# TYPE ray_selfplay_{name} gauge"] = None
            lines[f"ray_selfplay_{name}{{{told}}} {value}"] = None
        return "".join(f"{line}\n" for line in lines)


def _values(status: RunStatus, kind: RunKind[Any]) -> Iterator[tuple[str, str, dict[str, str], float]]:
    """Those of the metrics that this status has: name, meaning, labels beyond those of the run, value."""
    name_of_lost, lost = kind.lost
    for name, meaning in METRICS.items():
        value = lost(status) if name == name_of_lost else getattr(status, name, None)
        if value is not None:
            yield name, meaning, {}, float(value)
    for why, answers, _ in getattr(status, "failures", ()):
        yield _FAILED, "Answers whose verification failed, by reason (reasoning).", {"reason": why}, float(answers)


def _replaced(status: RunStatus, **changed: Any) -> Any:
    plain: Any = status
    return replace(plain, **changed)
