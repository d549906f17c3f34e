"""`selfplay top`: how runs are doing, wherever they run, from what they write into their folders."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from selfplay.cli.console import Console
from selfplay.cli.untrusted import one_line
from selfplay.errors import UserError
from selfplay.io import run_files, sealed, storage

_LOOK_S = 2.0
#: A run that has written nothing for so many of its periods gives no sign of life.
_PERIODS = 6


def top(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Run folders, paths or s3://…; or folders of run folders. [runs]")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print once, as JSON.")] = False,
) -> None:
    """Watch runs: games or rounds, speed, strength, queues, and whether their driver is alive. Ctrl-C ends it.

    Prints once where standard output is not a terminal.

    Examples:  selfplay top  ·  selfplay top s3://bucket/connect_four s3://bucket/countdown  ·  selfplay top --json
    """
    places = runs or ["runs"]
    found = look(places)
    if not found:
        raise UserError(f"no runs found in {', '.join(places)}; start one with `selfplay run` or name a run folder")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(screen(found))
        return
    try:
        with Live(screen(found), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_LOOK_S)
                live.update(screen(look(places)), refresh=True)
    except KeyboardInterrupt:
        return


def look(places: Sequence[str]) -> list[dict[str, Any]]:
    """What each run told last, with `age_s` since then and `alive`; the folders in `places`, or those in them."""
    told = [(place, read(place)) for place in places]
    for place, status in list(told):
        if status is None and not storage.is_remote(place) and Path(place).is_dir():
            told += [(str(inner), read(str(inner))) for inner in sorted(Path(place).iterdir()) if inner.is_dir()]
    return [{"run": place, **status} for place, status in told if status is not None]


def read(place: str) -> dict[str, Any] | None:
    """The newest `status.json` of a run; None where there is none."""
    try:
        told: dict[str, Any] = sealed.read(storage.join(place, run_files.STATUS_FILE))
        age = (datetime.now(UTC) - datetime.fromisoformat(told["written_at"])).total_seconds()
        ended = told["status"]["phase"] == "finished"
        turned = datetime.fromisoformat(told.get("turned_at", told["written_at"]))  # not told by older versions
        still = (datetime.now(UTC) - turned).total_seconds() if told.get("stalled") else 0.0
        alive = not ended and age < _PERIODS * float(told["every_s"])
        found = {**told, "age_s": round(age, 1), "alive": alive, "stalled_s": round(still, 1)}
        lines_of({"run": place, **found})  # what is shown of it is there, and of the right types
        return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise UserError(f"{storage.join(place, run_files.STATUS_FILE)} is not what a run writes") from None


def screen(found: Sequence[dict[str, Any]]) -> RenderableType:
    """A few lines a run."""
    lines = []
    for told in found:
        title, numbers, word = lines_of(told)
        style = "bold" if told["alive"] else "bold dim"
        lines += [Text(one_line(title, 200), style), Text("  " + one_line(numbers, 300))]
        lines += [Text("  " + one_line(word, 200), "dim")] if word else []
    return Group(*lines)


def lines_of(told: dict[str, Any]) -> tuple[str, str, str]:
    """A run's title, its numbers, its newest word."""
    s = told["status"]
    state = s["phase"] if told["alive"] or s["phase"] == "finished" else f"silent for {told['age_s']:,.0f} s"
    if told["alive"] and told["stalled_s"]:
        state = f"stalled for {told['stalled_s']:,.0f} s"
    speeds = (("tokens_per_s", "tok/s"), ("positions_per_s", "pos/s"), ("steps_per_s", "steps/s"))
    speed = [f"{s[name]:,.0f} {unit}" for name, unit in speeds if name in s][:1]
    behind = f" (plays {s['staleness']:.0f} behind)" if s.get("staleness") else ""
    queued, lag = s.get("queued_blocks", 0), s.get("archive_lag_s", 0.0)
    lost = s.get("lost", 0)
    lost = lost["count"] if isinstance(lost, dict) else lost
    numbers = [
        f"{s['episodes']:,} episodes",
        *(speed if told["alive"] else []),
        *([f"{s['players']} players"] if s.get("players") else []),
        f"version {s['version']}{behind}",
        *([headline(s)] if headline(s) else []),
        *([f"{queued} blocks wait for the archive ({lag:.0f} s)"] if queued else []),
        *([f"{lost:,} lost in flight"] if lost else []),
    ]
    title = f"{told['run']}   {state}   {s['elapsed_s'] / 60:.1f} of {s['total_s'] / 60:.0f} min"
    return title, " · ".join(numbers), s["messages"][-1] if s["messages"] else s["activity"]


def headline(status: dict[str, Any]) -> str:
    """How good the policy is: against the hardest opponent, or on held-out problems; with its 95% interval."""
    if "scores" in status:
        scores = status["scores"]
        return f"held-out {scores[0]['accuracy']:.0%} ({_wide(scores[0])})" if scores else ""
    rows = [row for row in status.get("strength", ()) if not row["opponent"].startswith("version")]
    return f"{rows[-1]['score']:.0%} of {rows[-1]['opponent']} ({_wide(rows[-1])})" if rows else ""


def _wide(row: dict[str, Any]) -> str:
    return f"{100 * row['low']:.0f}–{100 * row['high']:.0f}"
