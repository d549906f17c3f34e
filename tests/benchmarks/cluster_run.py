"""A run on a small cluster on this machine, seen from outside: its processes, its archive, its driver's last words.

Head (no core), a steady node (no core), workers of one core each; every node has a raylet and an object store of its
own. The driver is a process beside them, submitted again, with the same command, whenever it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

from selfplay.io import run_files

_STORE_BYTES = 100 * 2**20
_LOOK_S = 0.3
_RESUBMIT_S = 1.0
_END_S = 300.0


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Block:
    """A file of the archive. latest: when its youngest episode was begun, seconds since 1970. steps: moves."""

    writer: tuple[str, int]
    latest: float
    episodes: int
    steps: int


class Tail:
    """The files of an archive in the order of their commits, read from the log of its table as they come."""

    def __init__(self, out: Path) -> None:
        self.table = out / "corpus" / "episodes"
        self.blocks: list[Block] = []
        self.episodes = self.steps = self._next = 0

    def look(self) -> None:
        """Reads what was committed since."""
        while (commit := self.table / "_delta_log" / f"{self._next:020d}.json").exists():
            for line in commit.read_text().splitlines():
                added = json.loads(line).get("add")
                if added is not None and added["dataChange"]:  # compaction brings nothing new
                    self._read(self.table / unquote(added["path"]))
            self._next += 1

    def _read(self, path: Path) -> None:
        rows = pq.ParquetFile(path).read(columns=["slot", "epoch", "started_at", "n_steps"]).to_pylist()
        latest = max(row["started_at"].timestamp() for row in rows)
        block = Block((rows[0]["slot"], rows[0]["epoch"]), latest, len(rows), sum(row["n_steps"] for row in rows))
        self.blocks.append(block)
        self.episodes += block.episodes
        self.steps += block.steps

    def writers(self) -> set[tuple[str, int]]:
        """Slots and epochs that have archived games."""
        return {block.writer for block in self.blocks}


class ClusterRun:
    """The cluster and the run on it. words: of the command `selfplay run`, without --out and --address."""

    def __init__(self, words: list[str], out: Path, workers: int = 2) -> None:
        self.out, self.tail = out, Tail(out)
        head = {"num_cpus": 0, "resources": {"apart": 1}, "include_dashboard": False}
        self.nodes = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": _STORE_BYTES})
        self.steady = self._add_steady()
        self.workers = [self._add_worker() for _ in range(workers)]
        program = str(Path(sys.executable).with_name("selfplay"))
        self.command = [program, "run", *words, "--out", str(out), "--address", str(self.nodes.address)]
        self.ends: list[str] = []  # drivers that ended although nobody had killed them, with their last words
        self.drivers = 0
        self._killed = False
        self._again = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.submit()

    # -- driver -------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """Begins a driver, with a log of its own."""
        self.log = self.out.parent / f"{self.out.name}-drivers" / f"{self.drivers:03d}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.driver = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        self.drivers += 1
        self._killed = False

    def last_words(self, lines: int = 30) -> str:
        """Of the driver that was begun last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def tick(self) -> None:
        """A look at everything, and a pause."""
        if self.driver.poll() is not None and time.monotonic() >= self._again:
            if not self._killed:
                say(f"the driver ended by itself ({self.driver.returncode}):\n{self.last_words()}")
                self.ends.append(f"{self.log.name}, code {self.driver.returncode}: {self.last_words(3)}")
            self._again = time.monotonic() + _RESUBMIT_S
            self.submit()
        for due in [one for one in self._later if one[0] <= time.monotonic()]:
            self._later.remove(due)
            due[1]()
        self.tail.look()
        time.sleep(_LOOK_S)

    def stop(self) -> float | None:
        """Asks the driver to end in order; seconds that it took, None if it had to be killed."""
        began = time.monotonic()
        if self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGINT)
        try:
            self.driver.wait(_END_S)
        except subprocess.TimeoutExpired:
            say(f"the driver did not end in {_END_S:.0f} s:\n{self.last_words()}")
            self.driver.kill()
            self.driver.wait()
            return None
        self.tail.look()
        return time.monotonic() - began

    def shutdown(self) -> None:
        """Ends everything."""
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.nodes.shutdown()

    # -- processes ----------------------------------------------------------------------------------------------

    def processes(self, kind: str) -> list[psutil.Process]:
        """Processes of the actors of a kind, on all nodes."""
        found = []
        for node in self.nodes.list_all_nodes():
            for process in _offspring(node):
                with contextlib.suppress(psutil.Error):  # one that is just ending has no title
                    if " ".join(process.cmdline()).startswith(f"ray::{kind}"):
                        found.append(process)
        return found

    def version(self) -> int:
        """The newest version whose weights were published; -1: none."""
        return max(run_files.versions(str(self.out)), default=-1)

    def kill_driver(self) -> None:
        self._killed = True
        self.driver.kill()
        self.driver.wait()

    def kill_worker(self, node_s: float) -> None:
        """Kills a worker node; another joins after `node_s`."""
        node = self.workers.pop(0)
        self._kill_node(node)
        self._later.append((time.monotonic() + node_s, lambda: self.workers.append(self._add_worker())))

    def kill_steady(self, node_s: float) -> None:
        """Kills the steady node; another joins after `node_s`."""

        def add() -> None:
            self.steady = self._add_steady()

        self._kill_node(self.steady)
        self._later.append((time.monotonic() + node_s, add))

    def _kill_node(self, node: Any) -> None:
        own = [each.process.pid for kind in node.all_processes.values() for each in kind]
        offspring = _offspring(node)
        for process in [*map(psutil.Process, own), *offspring]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.nodes.remove_node(node, allow_graceful=False)

    def _add_worker(self) -> Any:
        return self.nodes.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)

    def _add_steady(self) -> Any:
        return self.nodes.add_node(num_cpus=0, resources={"steady": 1}, object_store_memory=_STORE_BYTES)


def _offspring(node: Any) -> list[psutil.Process]:
    try:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return list(raylet.children(recursive=True))
    except (psutil.Error, KeyError):
        return []
