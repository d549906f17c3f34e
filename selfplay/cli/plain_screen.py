"""The screen of a kind of run that has none of its own: its numbers, its newest messages, how long it still takes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selfplay.cli import screen
from selfplay.cli.untrusted import one_line
from selfplay.commands import command
from trainers.run.kind import RunStatus, RunSummary

#: What the head of the screen says already.
_HEAD = ("recipe", "env", "out", "corpus", "phase", "activity", "elapsed_s", "total_s", "messages")
_MOST_MESSAGES = 5


def drawn(status: RunStatus, width: int, height: int) -> RenderableType:
    """The live screen."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for name, value in numbers(status):
        table.add_row(name, value)
    messages = [Text(one_line(message, width), screen.FAIR) for message in status.messages[-_MOST_MESSAGES:]]
    title = f"{status.recipe} · {status.env} · {status.activity or status.phase}"
    return Panel(Group(table, *messages), title=one_line(title, width - 8), subtitle=_left(status), height=height - 1)


def progress(status: RunStatus) -> str:
    """A run in one line."""
    parts = [one_line(status.activity, 200)] if status.activity else []
    return ", ".join([*parts, *(f"{name} {value}" for name, value in numbers(status)), _left(status)])


def farewell(summary: RunSummary) -> RenderableType:
    """The last screen."""
    status: RunStatus = summary.status
    how = "stopped; everything is saved" if summary.ended_by == "interrupted" else "finished"
    head = f"{status.recipe}: {how}, {screen.clock(status.elapsed_s)}: {screen.count(status.episodes)} episodes"
    lines = [Text(head)]
    lines += [Text(f"{name}: {value}") for name, value in numbers(status)]
    lines += [Text(one_line(message, 1000), screen.FAIR) for message in status.messages[-3:]]
    return Group(*lines, Text(""), Text(f"{command('corpus', 'verify', status.corpus)}    check every episode"))


def numbers(status: RunStatus) -> list[tuple[str, str]]:
    """The numbers and words of a status, by name; what is not yet known is left out."""
    plain: Any = status
    found = []
    for field in fields(plain):
        value = getattr(plain, field.name)
        if field.name not in _HEAD and isinstance(value, int | float | str) and value != "":
            shown = one_line(value, 200) if isinstance(value, str) else f"{value:,.4g}"
            found.append((field.name.replace("_", " "), shown))
    return found


def _left(status: RunStatus) -> str:
    return f"{screen.clock(max(0.0, status.total_s - status.elapsed_s))} left"
