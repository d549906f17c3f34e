"""Checks of a machine with a GPU: python tests/gpu/check.py --json OUT --seconds 240 [--device cpu] [--only NAME …]

It needs torch, numpy, numba, pyarrow and, for the language model, tokenizers and transformers; neither ray nor
OpenSpiel nor deltalake, though OpenSpiel is played where it is there. Each check is a process of its own with a limit
of time, so that one that hangs, dies or breaks the device ends no other. Exit code 1 where a check FAILED.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from report import FAILED, MARK, Report, table  # noqa: E402

#: Name of a check, its module and its share of the time. First what finds faults, then what measures.
CHECKS = {
    "evaluator": ("evaluator", 0.12),
    "learner": ("learner", 0.16),
    "speed": ("net_speed", 0.27),
    "games": ("many_games", 0.25),
    "language": ("language_model", 0.2),
}
#: Seconds that a check may take beyond its share: for what is under way at its end, imports, and compiling.
_SPARE = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seconds", type=float, default=240.0, help="of all checks together, starting them apart")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: small sizes, for a rehearsal")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the one check, in this process
    arguments = parser.parse_args()
    total = sum(CHECKS[name][1] for name in arguments.only)
    limits = {name: arguments.seconds * CHECKS[name][1] / total for name in arguments.only}
    if arguments.here:
        (name,) = arguments.only
        here(name, arguments.device, limits[name])
        return 0
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    for name, limit in limits.items():
        print(f"-- {name}: {limit:.0f} s, {time.monotonic() - began:.0f} s gone", flush=True)
        rows += apart(name, arguments.device, limit)
        verdicts = [row["verdict"] for row in rows]
        counts = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
        if arguments.json:  # after each check, so that what is known is kept
            about = {"device": arguments.device, "seconds": time.monotonic() - began}
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps({**about, "counts": counts, "rows": rows}, indent=1))
    print("\n" + "\n".join(table(rows)))
    print(f"\n{counts} in {time.monotonic() - began:.0f} s on {platform.node()}, device {arguments.device}")
    return 1 if FAILED in counts else 0


def here(name: str, device: str, seconds: float) -> None:
    """Runs one check in this process; its rows go to standard output. The time begins when all is imported."""
    report = Report(name, math.inf)

    def whole() -> dict[str, Any]:
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} finds no GPU here; --device cpu is a rehearsal without one")
        if device == "cpu":
            torch.set_num_threads(1)
        check = importlib.import_module(CHECKS[name][0])
        report.deadline = time.monotonic() + seconds
        check.main(report, device, device == "cpu")
        return {}

    report.case("all of it", whole)


def apart(name: str, device: str, seconds: float) -> list[dict[str, Any]]:
    """Runs one check in a process of its own; its rows, those of a process that died included."""
    command = [sys.executable, str(HERE / "check.py"), "--here", "--only", name, "--device", device]
    process = subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)
    limit = seconds + _SPARE
    clock = threading.Timer(limit, process.kill)
    clock.start()
    rows: list[dict[str, Any]] = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            rows.append(json.loads(line.removeprefix(MARK)))
            print(*table(rows[-1:]), flush=True)
        else:
            print("   " + line.rstrip(), flush=True)
    code = process.wait()
    late = not clock.is_alive()
    clock.cancel()
    if code:
        why = f"it took more than {limit:.0f} s" if late else f"its process ended with {_words(code)}"
        rows.append({"check": name, "case": "all of it", "verdict": FAILED, "note": why, "numbers": {}})
        print(*table(rows[-1:]), flush=True)
    return rows


def _words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


if __name__ == "__main__":
    sys.exit(main())
