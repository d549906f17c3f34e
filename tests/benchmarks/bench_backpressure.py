"""A run whose learner is ten times too slow: does anything pile up, and does what plays wait?

    python tests/benchmarks/bench_backpressure.py --recipe connect_four --minutes 10
    python tests/benchmarks/bench_backpressure.py --recipe parity_cot --minutes 10

For --calm seconds from the first game (or round) the run is left alone; then the learner's process is stopped and
continued so that it works a tenth of the time. Measured every few seconds: the memory of all processes of the run
(proportional set sizes), by kind; bytes in the object store; staleness, queued blocks and owed samples as the run tells
them. Games: the limit of owed samples is what `trainers.alphazero.loop` stops launching calls at, higher until the
replay window is filled and that debt worked off; calls under way then come on top, and they end with games begun
before.
Reasoning: the limit is of staleness, `learner.max_staleness`. A replay window may grow, to its bound: its rows are told
beside the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from cluster_run import say
from plasma import Stores

from trainers.recipe import load_recipe

_LEARNERS = ("ray::Student", "ray::Tutor")
#: No measurement, which would pause it, and no end but by us.
_GAMES = ["--set=evaluation.every_s=100000"]
#: Besides a short warm start, and rounds sampled ahead: without those nothing could pile up.
_REASONING = [*_GAMES, "--set=warm.episodes=4000", "--set=warm.steps=200", "--set=learner.max_staleness=2"]
_BEGIN_S = 600.0
_MIB = 2**20


def title(process: psutil.Process) -> str:
    """What a process is: the kind of an actor, "driver" or the name of a program."""
    words = process.cmdline()
    first = words[0] if words else process.name()
    return first.split(".")[0].split(":")[2] if first.startswith("ray::") else Path(first).name


class Brake(threading.Thread):
    """Lets a process work for `on` of every `period` seconds, until `ended`."""

    def __init__(self, find: Any, on: float, period: float) -> None:
        super().__init__(daemon=True)
        self._find, self._on, self._off, self.ended = find, on, period - on, threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            found = self._find()
            if found is None:
                time.sleep(0.5)
                continue
            try:
                while not self.ended.is_set():
                    found.send_signal(signal.SIGSTOP)
                    time.sleep(self._off)
                    found.send_signal(signal.SIGCONT)
                    time.sleep(self._on)
            except psutil.Error:  # it has died, and another will come
                continue
            finally:
                with contextlib.suppress(psutil.Error):
                    found.send_signal(signal.SIGCONT)


class Braked:
    """A run of our own, and what it looks like from outside."""

    def __init__(self, recipe: str, settings: list[str], out: Path) -> None:
        program = str(Path(sys.executable).with_name("selfplay"))
        command = [program, "run", recipe, "--out", str(out), "--minutes", "600", *settings]
        self.out, self.log = out, out.parent / "driver.log"
        with self.log.open("wb") as log:
            self.driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._stores: Stores | None = None

    def family(self) -> list[psutil.Process]:
        mine = psutil.Process(self.driver.pid)
        return [mine, *mine.children(recursive=True)]

    def learner(self) -> psutil.Process | None:
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(_LEARNERS):
                    return process
        return None

    def status(self) -> dict[str, Any]:
        """Of status.json; empty while there is none."""
        try:
            return dict(json.loads((self.out / "status.json").read_text())["status"])
        except (FileNotFoundError, ValueError):
            return {}

    def memory(self) -> dict[str, float]:
        """Proportional set sizes in MiB, by kind of process; "all": their sum."""
        found: dict[str, float] = {}
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                kind = "driver" if process.pid == self.driver.pid else title(process)
                found[kind] = found.get(kind, 0.0) + process.memory_full_info().pss / _MIB
        return {**found, "all": sum(found.values())}

    def store(self) -> float | None:
        """MiB of objects in the object store; None where it could not be asked."""
        try:
            if self._stores is None:
                words = next(w for p in self.family() if (w := p.cmdline()) and w[0].endswith("raylet/raylet"))
                address = next(word.split("=", 1)[1] for word in words if word.startswith("--gcs-address="))
                self._stores = Stores(address)
            return sum(self._stores.used().values()) / _MIB
        except Exception as error:
            say(f"the object store could not be asked: {error}")
            return None

    def end(self) -> None:
        if self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGINT)
        try:
            self.driver.wait(300)
        except subprocess.TimeoutExpired:
            say("it did not end in 300 s")
            for process in reversed(self.family()):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.driver.wait()


def sample(run: Braked, began: float, slowed: bool) -> dict[str, Any]:
    status, memory = run.status(), run.memory()
    names = ("staleness", "queued_blocks", "owed_samples", "window_rows", "version", "rounds", "episodes")
    made = status.get("positions", status.get("tokens", 0))
    at = time.monotonic() - began
    return {"at": at, "slowed": slowed, "memory": memory, "store": run.store(), "made": made,
            **{name: status[name] for name in names if name in status}}  # fmt: skip


def slope(samples: list[dict[str, Any]], kind: str) -> float:
    """MiB a minute, by least squares."""
    minutes = [one["at"] / 60 for one in samples]
    return round(float(np.polyfit(minutes, [one["memory"].get(kind, 0.0) for one in samples], 1)[0]), 2)


def rate(samples: list[dict[str, Any]], name: str = "made") -> float | None:
    """A second, of what is counted; "made": positions (games) or tokens (reasoning)."""
    if len(samples) < 2:
        return None
    return round((samples[-1][name] - samples[0][name]) / (samples[-1]["at"] - samples[0]["at"]), 3)


def most(samples: list[dict[str, Any]], name: str) -> float | None:
    return max((one[name] for one in samples if one.get(name) is not None), default=None)


def report(config: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    at = {share: samples[round(share / 100 * (len(samples) - 1))] for share in (20, 50, 100)}
    half = samples[len(samples) // 2 :]
    calm, slowed = ([one for one in samples if one["slowed"] == is_slowed] for is_slowed in (False, True))
    told: dict[str, Any] = {
        "samples": len(samples),
        "memory_mib": {f"{share}%": round(one["memory"]["all"]) for share, one in at.items()},
        "memory_slope_mib_per_min": {kind: slope(half, kind) for kind in sorted(half[-1]["memory"])},
        "store_mib": {f"{share}%": one["store"] and round(one["store"], 1) for share, one in at.items()},
        "store_mib_most": most(samples, "store"),
        "staleness_most": most(samples, "staleness"),
        "calm_second_half_per_s": rate(calm[len(calm) // 2 :]),
        "slowed_per_s": rate(slowed),
        "slowed_second_half_per_s": rate(slowed[len(slowed) // 2 :]),
    }
    learner = config["learner"]
    if "rounds" in samples[-1]:
        rounds = {"calm": rate(calm, "rounds"), "slowed": rate(slowed, "rounds")}
        return told | {"max_staleness": learner["max_staleness"], "rounds_per_s": rounds}
    limit = max(learner["publish_every_samples"], 4 * learner["batch"])
    more = learner["samples_per_position"] * learner["window_initial"]
    play, cores = config["selfplay"], psutil.cpu_count() or 1
    players = cores if play["actors"] == "auto" else play["actors"]
    of_calls = players * play["refresh_moves"] * play["games"] * learner["samples_per_position"]
    first = next((i for i, one in enumerate(samples) if one["version"] >= 1 and one["owed_samples"] <= limit), None)
    filling, filled = samples[:first], [] if first is None else samples[first:]
    return told | {
        "owed_samples_most": most(filled, "owed_samples"),
        "owed_samples_limit": limit,
        "owed_samples_most_while_the_window_fills": most(filling, "owed_samples"),
        "owed_samples_limit_while_the_window_fills": limit + more,
        "owed_samples_of_a_call_each": of_calls,
        "queued_blocks_most": most(samples, "queued_blocks"),
        "window_rows": {f"{share}%": one["window_rows"] for share, one in at.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="connect_four", help="of games, or of reasoning such as parity_cot")
    parser.add_argument("--minutes", type=float, default=10.0, help="from the first game or round")
    parser.add_argument("--calm", type=float, default=60.0, help="seconds of them before the learner is slowed")
    parser.add_argument("--slower", type=float, default=10.0, help="times")
    parser.add_argument("--period", type=float, default=0.5, help="seconds in which the learner works once")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the run; may be repeated")
    parser.add_argument("--out", default=None, help="folder that keeps run and log")
    args = parser.parse_args()
    root = Path(args.out or tempfile.mkdtemp(prefix="backpressure-"))
    root.mkdir(parents=True, exist_ok=True)
    reasoning = hasattr(load_recipe(args.recipe), "task")
    settings = [*(_REASONING if reasoning else _GAMES), *(f"--set={one}" for one in args.set)]
    run = Braked(args.recipe, settings, root / "run")
    brake = Brake(run.learner, args.period / args.slower, args.period)
    samples: list[dict[str, Any]] = []
    try:
        limit = time.monotonic() + _BEGIN_S
        while run.status().get("phase") not in ("playing", "learning"):
            if run.driver.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the run did not begin:\n{run.log.read_text()[-3000:]}")
            time.sleep(0.2)
        began = time.monotonic()
        say("it has begun")
        while (at := time.monotonic() - began) < 60 * args.minutes:
            if at >= args.calm and not brake.is_alive():
                say(f"from now on the learner is {args.slower:g} times slower")
                brake.start()
            if run.driver.poll() is not None:
                raise SystemExit(f"the run has ended by itself:\n{run.log.read_text()[-3000:]}")
            samples.append(one := sample(run, began, brake.is_alive()))
            shown = {name: value for name, value in one.items() if name not in ("memory", "at")}
            say(f"{one['at']:.0f} s: {one['memory']['all']:.0f} MiB, {shown}")
            time.sleep(max(0.0, args.every - (time.monotonic() - began - at)))
    finally:
        brake.ended.set()
        if brake.is_alive():
            brake.join()
        run.end()
    config = json.loads((root / "run" / "config.json").read_text())
    told = {"recipe": args.recipe, "minutes": args.minutes, "slower": args.slower, "out": str(root)}
    print(json.dumps({**told, **report(config, samples)}, indent=2))


if __name__ == "__main__":
    main()
