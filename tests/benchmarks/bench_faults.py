"""A run on a cluster under fire: components are killed (kill -9) in turn, and what that costs is reported.

    python tests/benchmarks/bench_faults.py --minutes 30 --every 20
    python tests/benchmarks/bench_faults.py --minutes 60 --spaced 10 --undisturbed 5

Head, steady node, two workers of a core each, all on this machine; the driver is submitted again whenever it has ended.
--every: a kill every so many seconds, whatever has recovered. --spaced: first one kill of each component, to measure
its restart; then after each kill that many times its restart time (median so far) passes before the next.

Restart time: seconds from the kill until, as seen from outside,
  Player, worker node   a new player's process is there, and a game begun after that, of a writer that the archive did
                        not know, is archived (a worker node's successor is added --node-s after the kill)
  Archivist, WeightServer, Examiner   a new process of its kind is there, and a game begun after that is archived
  Student               a new process is there, and a version newer than at the kill is published
  driver, steady        a game begun after the kill is archived, by a writer that the archive did not know
It is "alone" where no other kill fell into it; medians are of those where there are any. What has not recovered in 3
minutes is reported, and a run that archives nothing for so long has its driver killed, so that the rest is measured.

Lost, doubled, untrue, unpublished: see `accounts`; all must be 0. Rates leave out the time until the first game of the
first driver, and with --spaced the warm-up. The settings (64 simulations) keep 30 minutes on two cores below 300,000
games, and all of them are verified, by two processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from accounts import accounts, lost_in_flight
from cluster_run import ClusterRun, say

VICTIMS = ("Player", "Student", "Archivist", "worker node", "WeightServer", "Examiner", "driver")
PATIENCE_S = 180.0
_FIRST_GAME_S = 300.0
SETTINGS = [
    "--minutes=600",
    "--set=selfplay.games=64",
    "--set=search.simulations=64",
    "--set=learner.device=cpu",
    "--set=learner.samples_per_position=2",
    "--set=learner.window_initial=500",
    "--set=learner.batch=128",
    "--set=learner.publish_every_samples=5000",
    "--set=run.checkpoint_every_s=10",
    "--set=evaluation.every_s=5",
    "--set=evaluation.games=4",
    '--set=evaluation.opponents=["random", "checkpoints"]',
    "--set=evaluation.simulations=4",
    "--set=evaluation.exact_positions=0",
]


@dataclass
class Kill:
    """What was killed when (seconds since 1970), what was known then, and when it worked again, seconds later."""

    kind: str
    at: float
    pids: set[int]
    writers: set[tuple[str, int]]
    version: int
    block: int
    lost_before: int
    process_s: float | None = None
    restart_s: float | None = None
    given_up: bool = False
    alone: bool = True
    lost: int = 0

    @property
    def open(self) -> bool:
        return self.restart_s is None and not self.given_up

    def look(self, run: ClusterRun) -> None:
        """Has it recovered?"""
        since = time.time() - self.at
        if self.process_s is None:
            whole = self.kind in ("driver", "steady")
            if whole or {process.pid for process in run.processes(_process(self.kind))} - self.pids:
                self.process_s = 0.0 if whole else since
        if self.process_s is not None and self._works(run, self.at + self.process_s):
            self.restart_s = since
            say(f"  {self.kind} works again after {since:.1f} s (process after {self.process_s:.1f} s)")
        elif since > PATIENCE_S:
            self.given_up = True
            say(f"  {self.kind} DOES NOT WORK after {since:.0f} s; the driver's last words:\n{run.last_words()}")

    def _works(self, run: ClusterRun, after: float) -> bool:
        if self.kind == "Student":
            return run.version() > self.version
        fresh = self.kind in ("Player", "worker node", "driver", "steady")
        newer = (block for block in run.tail.blocks[self.block :] if block.latest > after)
        return any(not fresh or block.writer not in self.writers for block in newer)


def _process(kind: str) -> str:
    return "Player" if kind == "worker node" else kind


@dataclass
class Fire:
    """Kills on one run."""

    run: ClusterRun
    node_s: float
    kills: list[Kill] = field(default_factory=list)
    stalls: int = 0

    def strike(self, kind: str) -> Kill | None:
        """Kills one of a kind; None where there is none at the moment."""
        run = self.run
        pids = {process.pid for process in run.processes(_process(kind))}
        lost = lost_in_flight(run.out)
        kill = Kill(kind, 0.0, pids, run.tail.writers(), run.version(), len(run.tail.blocks), lost)
        kill.at = time.time()
        if not self._kill(kind):
            return None
        self.account(lost)
        for other in self.kills:
            if other.open:
                other.alone = kill.alone = False
        self.kills.append(kill)
        say(f"kill {len(self.kills)}: {kind}; {run.tail.episodes:,} games archived")
        return kill

    def account(self, lost: int) -> None:
        """What was lost since the last kill is its doing."""
        if self.kills:
            self.kills[-1].lost = lost - self.kills[-1].lost_before

    def _kill(self, kind: str) -> bool:
        if kind == "driver":
            if self.run.driver.poll() is None:
                self.run.kill_driver()
                return True
            return False
        if kind in ("worker node", "steady"):
            if kind == "worker node" and not self.run.workers:
                return False
            (self.run.kill_worker if kind == "worker node" else self.run.kill_steady)(self.node_s)
            return True
        for process in self.run.processes(kind)[:1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
                return True
        return False

    def watch(self, seconds: float, until: Kill | None = None) -> None:
        """Looks on for so long, or until a kill is settled."""
        end, blocks, changed = time.monotonic() + seconds, len(self.run.tail.blocks), time.monotonic()
        while time.monotonic() < end and (until is None or until.open):
            self.run.tick()
            for kill in self.kills:
                if kill.open:
                    kill.look(self.run)
            if len(self.run.tail.blocks) > blocks:
                blocks, changed = len(self.run.tail.blocks), time.monotonic()
            elif time.monotonic() - changed > PATIENCE_S:
                say(f"NOTHING ARCHIVED for {PATIENCE_S:.0f} s; its driver is killed:\n{self.run.last_words()}")
                self.stalls, changed = self.stalls + 1, time.monotonic()
                self.run.kill_driver()

    def restart_s(self, kind: str) -> float:
        """Median of what a component took so far."""
        return median([kill.restart_s for kill in self.kills if kill.kind == kind and kill.restart_s] or [PATIENCE_S])

    def by_component(self) -> dict[str, dict[str, Any]]:
        found = {}
        for kind in dict.fromkeys(kill.kind for kill in self.kills):
            mine = [kill for kill in self.kills if kill.kind == kind]
            done = [kill for kill in mine if kill.restart_s is not None]
            times = [kill.restart_s for kill in done if kill.alone] or [kill.restart_s for kill in done]
            starts = [kill.process_s for kill in done if kill.process_s]
            found[kind] = {
                "kills": len(mine),
                "alone": sum(kill.alone for kill in done),
                "not_recovered": sum(kill.given_up for kill in mine),
                "restart_s_median": round(median(times), 1) if times else None,
                "restart_s_max": round(max(kill.restart_s for kill in done), 1) if done else None,
                "process_s_median": round(median(starts), 1) if starts else None,
                "lost_in_flight": [kill.lost for kill in mine],
            }
        return found


def measure(args: argparse.Namespace, out: Path, minutes: float, fire: bool) -> dict[str, Any]:
    """One run, left alone or under fire; its rates and its accounts."""
    run = ClusterRun([args.recipe, *SETTINGS], out)
    under = Fire(run, args.node_s)
    try:
        limit = time.monotonic() + _FIRST_GAME_S
        while not run.tail.episodes:
            run.tick()
            if time.monotonic() > limit:
                raise SystemExit(f"no game in {_FIRST_GAME_S:.0f} s:\n{run.last_words()}")
        say(f"the first games are archived; {'under fire' if fire else 'left alone'} for {minutes:g} minutes")
        victims = [*VICTIMS, "steady"] if args.steady else list(VICTIMS)
        if fire and args.spaced:
            for kind in victims:
                under.watch(PATIENCE_S, under.strike(kind))
                under.watch(5.0)
            say(f"warm-up done: { {kind: round(under.restart_s(kind), 1) for kind in victims} }")
        began, episodes, steps = time.monotonic(), run.tail.episodes, run.tail.steps
        end, number = began + 60 * minutes, 0
        while (left := end - time.monotonic()) > 0:
            if not fire or (args.spaced and left < under.restart_s(victims[number % len(victims)])):
                under.watch(min(left, 60.0))
                say(f"{run.tail.episodes:,} games archived")
                continue
            kind, patience = victims[number % len(victims)], time.monotonic() + args.every
            number += 1
            while (struck := under.strike(kind)) is None and time.monotonic() < min(patience, end):
                under.watch(1.0)  # it is not there: what was killed before has not come that far
            if struck is None:
                say(f"no {kind} to be killed")
            pause = time.monotonic()
            if args.spaced and struck is not None:
                under.watch(PATIENCE_S, struck)
                wait = args.spaced * under.restart_s(struck.kind)
            else:
                wait = args.every
            under.watch(min(pause + wait, end) - time.monotonic())
        took = (time.monotonic() - began) / 60
        rates = {
            "minutes": round(took, 2),
            "episodes_per_min": round((run.tail.episodes - episodes) / took, 1),
            "moves_per_min": round((run.tail.steps - steps) / took, 1),
        }
        settled = time.monotonic() + 60
        while any(kill.open for kill in under.kills) and time.monotonic() < settled:
            under.watch(1.0)
        ended = run.stop()
        under.account(lost_in_flight(out))
        say("ended; its accounts are checked")
    finally:
        run.shutdown()
    told = {**rates, **accounts(out), "ended_in_s": ended and round(ended, 1)}
    if fire:
        told |= {"kills": len(under.kills), "stalls": under.stalls, "components": under.by_component()}
    return told | {"drivers": run.drivers, "drivers_that_ended_by_themselves": run.ends}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="under fire, the warm-up of --spaced not included")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--spaced", type=float, default=None, help="restart times between kills, instead of --every")
    parser.add_argument("--undisturbed", type=float, default=0.0, help="minutes of a run left alone, the reference")
    parser.add_argument("--steady", action="store_true", help="the steady node is killed, too")
    parser.add_argument("--node-s", type=float, default=5.0, help="seconds until a killed node's successor joins")
    parser.add_argument("--recipe", default="tic_tac_toe")
    parser.add_argument("--out", default=None, help="folder that keeps the runs and the drivers' logs")
    args = parser.parse_args()
    root = Path(args.out or tempfile.mkdtemp(prefix="faults-"))
    say(f"runs and drivers' logs: {root}")
    told: dict[str, Any] = {"minutes": args.minutes, "every_s": None if args.spaced else args.every}
    told |= {"spaced": args.spaced, "out": str(root)}
    if args.undisturbed:
        told["alone"] = measure(args, root / "alone", args.undisturbed, False)
    told["under_fire"] = measure(args, root / "fire", args.minutes, True)
    if args.undisturbed:
        for rate in ("episodes_per_min", "moves_per_min"):
            told[f"share_of_{rate}"] = round(told["under_fire"][rate] / max(1e-9, told["alone"][rate]), 3)
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
