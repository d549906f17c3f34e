"""A run under fire: something is killed every so often, and what that costs is reported, by component.

    python tests/benchmarks/bench_faults.py --minutes 30 --every 20 [--recipe tic_tac_toe] [--out FOLDER]

Two runs of equal length: one left alone, one whose player, learner, archivist, weight server, examiner and driver are
killed (kill -9) in turn. Then: episodes lost and doubled (none may be), throughput against the undisturbed run, and for
each component how long it took until the next game was archived, and how many games were in flight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import psutil

from selfplay import store
from selfplay.store.verify import verify_corpus

VICTIMS = ("Player", "Student", "Archivist", "Player", "WeightServer", "Examiner", "driver")


class Run:
    """A run that is begun again whenever it has ended too early, as whoever submits jobs does."""

    def __init__(self, recipe: str, out: Path, seconds: float) -> None:
        self.command = [str(Path(sys.executable).with_name("selfplay")), "run", recipe, "--out", str(out),
                        "--minutes", "600"]  # fmt: skip
        self.out, self.ends = out, time.monotonic() + seconds
        self.begin()

    def begin(self) -> None:
        quiet = subprocess.DEVNULL
        self.driver = subprocess.Popen(self.command, stdout=quiet, stderr=quiet, start_new_session=True)

    def episodes(self) -> int:
        try:
            return store.open(str(self.out)).count()
        except Exception:  # nothing is archived yet
            return 0

    def victim(self, kind: str) -> psutil.Process | None:
        if kind == "driver":
            return psutil.Process(self.driver.pid)
        for process in psutil.process_iter():
            try:
                mine = any(f"_{self.driver.pid}/" in file.path for file in process.open_files())
                if mine and " ".join(process.cmdline()).startswith(f"ray::{kind}"):
                    return process
            except psutil.Error:
                continue
        return None

    def until_more(self, than: int) -> float:
        """Seconds until more is archived than there was."""
        began = time.monotonic()
        while time.monotonic() < self.ends:
            if self.driver.poll() is not None:
                self.begin()
            if self.episodes() > than:
                break
            time.sleep(0.2)
        return time.monotonic() - began

    def end(self) -> None:
        if self.driver.poll() is None:
            self.driver.terminate()
        self.driver.wait(120)


def run(recipe: str, out: Path, seconds: float, every: float | None) -> dict[str, object]:
    """One run; every: seconds between kills, None for none."""
    one, restarts, number = Run(recipe, out, seconds), dict[str, list[float]](), 0
    one.until_more(0)
    while time.monotonic() < one.ends:
        time.sleep(min(every or 1.0, max(0.0, one.ends - time.monotonic())))
        if one.driver.poll() is not None:
            one.begin()
        if every is None or time.monotonic() >= one.ends:
            continue
        kind, before = VICTIMS[number % len(VICTIMS)], one.episodes()
        victim = one.victim(kind)
        number += 1
        if victim is not None:
            victim.kill()
            restarts.setdefault(kind, []).append(one.until_more(before))
    one.end()
    rows = store.open(str(out)).to_arrow(columns=["episode_id", "seed", "status"])
    doubled = sum(times - 1 for name in ("episode_id", "seed") for times in Counter(rows[name].to_pylist()).values())
    untrue = sum(check.state != "true" for check in verify_corpus(store.open(str(out))))
    lost = json.loads((out / "state.json").read_text())["lost_games"]
    return {"episodes": rows.num_rows, "doubled": doubled, "untrue": untrue, "lost_in_flight": lost, "kills": number,
            "until_next_game_s": {kind: round(median(times), 1) for kind, times in restarts.items()}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--recipe", default="tic_tac_toe")
    parser.add_argument("--out", default=None)
    args = parser.parse_args()
    root = Path(args.out or tempfile.mkdtemp(prefix="faults-"))
    alone = run(args.recipe, root / "alone", args.minutes * 60, None)
    fire = run(args.recipe, root / "fire", args.minutes * 60, args.every)
    share = int(str(fire["episodes"])) / max(1, int(str(alone["episodes"])))
    print(json.dumps({"alone": alone, "under_fire": fire, "throughput_share": round(share, 3)}, indent=2))


if __name__ == "__main__":
    main()
