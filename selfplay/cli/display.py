"""Who shows a run: a live screen on a terminal, a line every ten seconds anywhere else, nothing for `--json`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, TextIO

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from selfplay.cli import plain_screen, reasoning_screen, screen
from selfplay.cli.console import Console
from selfplay.cli.farewell import farewell
from selfplay.cli.untrusted import one_line
from trainers.alphazero.status import Status
from trainers.reasoning.status import ReasoningStatus, Score
from trainers.run.kind import RunStatus, RunSummary

LINE_EVERY_S = 10.0
#: Phases in which there is progress to tell.
WORKING = ("playing", "warming", "learning")


class Display(Protocol):
    """Fed with a status whenever there is a new one; `close` gives the terminal back, also after an error.

    `finish` is told the file of rules or questions of the run, "" where what it plays is installed.
    `stopping` is called from a signal handler, at the first Ctrl-C: it must show at once that it was heard.
    """

    def update(self, status: RunStatus) -> None: ...

    def stopping(self) -> None: ...

    def close(self) -> None: ...

    def finish(self, summary: RunSummary, file: str = "") -> None: ...


def make(out: TextIO, err: TextIO, as_json: bool) -> Display:
    """The display that suits the terminal. With `as_json` the lines go to standard error."""
    if as_json:
        return LineDisplay(err, final=False)
    console = console_on(out)
    dumb = os.environ.get("TERM", "") in ("dumb", "")
    return LiveDisplay(console, out) if console.is_terminal and not dumb else LineDisplay(out, final=True)


def console_on(stream: TextIO) -> Console:
    """A console on a stream that may not be `sys.stdout`, as wide as its terminal (100 columns where there is none)."""
    console = Console(file=stream, highlight=False, emoji=False)
    size = terminal_size(stream)
    if size is not None:
        console.size = size  # type: ignore[assignment]
    elif not console.is_terminal:
        console.width = 100
    return console


def terminal_size(stream: TextIO) -> os.terminal_size | None:
    """Of the stream itself: rich asks descriptors 0 to 2, of which the last two belong to the log here."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return None
    return size if size.columns and size.lines else None


class LiveDisplay:
    """The alternate screen of a terminal, redrawn four times a second."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console = console
        self._stream = stream
        self._status: RunStatus | None = None
        self._stopping = False
        self._live = Live(
            get_renderable=self._render,
            console=console,
            screen=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)

    def _render(self) -> RenderableType:
        size = terminal_size(self._stream)
        if size is not None:
            self._console.size = size  # type: ignore[assignment]
        if self._status is None:
            return Text(" starting", screen.DIM)
        status = self._status
        if self._stopping and status.phase not in ("draining", "finished"):
            draining: Any = status
            status = replace(draining, phase="draining", activity="")
        return drawn(status, self._console.width, self._console.height)

    def update(self, status: RunStatus) -> None:
        self._status = status

    def stopping(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._live.stop()

    def finish(self, summary: RunSummary, file: str = "") -> None:
        self.close()
        self._console.print(farewell(summary, file), crop=False)


class LineDisplay:
    """Plain lines for a pipe or a log: each new match or held-out score once, a summary every ten seconds."""

    def __init__(self, stream: TextIO, final: bool, every_s: float = LINE_EVERY_S) -> None:
        self._console = console_on(stream)
        self._final = final
        self._every_s = every_s
        self._last_line = float("-inf")
        self._seen: RunStatus | None = None
        self._stopping = self._told = False

    def update(self, status: RunStatus) -> None:
        before = self._seen
        self._seen = status
        if self._stopping and not self._told:
            self._told = True
            self._line(
                status, f"stopping: {_episodes(status)} are sealed and everything is saved; Ctrl-C again gives that up"
            )
        if before is None or (_sizing(status) and _sizing(status) != _sizing(before)):
            self._line(status, _sizing(status) or f"{status.recipe}: {status.activity or status.phase}")
        elif status.phase != before.phase or (status.phase == "starting" and status.activity != before.activity):
            self._line(status, status.activity or status.phase)
        for news in told(before, status):
            if isinstance(news, str):
                self._line(status, news)
            else:
                self._console.print(news)
        for message in status.messages:
            if before is None or message not in before.messages:
                self._line(status, message)
        if status.phase in WORKING and time.monotonic() - self._last_line >= self._every_s:
            self._last_line = time.monotonic()
            self._line(status, in_one_line(status))

    def stopping(self) -> None:
        # Not printed here: a signal handler may interrupt a print.
        self._stopping = True

    def _line(self, status: RunStatus, text: str) -> None:
        self._console.print(Text(f"[{screen.clock(status.elapsed_s):>5}] {one_line(text, 2000)}"), soft_wrap=True)

    def close(self) -> None:
        pass

    def finish(self, summary: RunSummary, file: str = "") -> None:
        if self._final:
            self._console.print(farewell(summary, file), crop=False)


def drawn(status: RunStatus, width: int, height: int) -> RenderableType:
    """The live screen of any kind of run."""
    if isinstance(status, ReasoningStatus):
        return reasoning_screen.screen(status, width, height)
    if isinstance(status, Status):
        return screen.screen(status, width, height)
    return plain_screen.drawn(status, width, height)


def in_one_line(status: RunStatus) -> str:
    """A run of any kind in one line."""
    if isinstance(status, ReasoningStatus):
        return reasoning_progress(status)
    return progress(status) if isinstance(status, Status) else plain_screen.progress(status)


def _episodes(status: RunStatus) -> str:
    """What its episodes are called."""
    if isinstance(status, ReasoningStatus):
        return "answers"
    return "games" if isinstance(status, Status) else "episodes"


def _sizing(status: RunStatus) -> str:
    return str(getattr(status, "sizing", ""))


def told(before: RunStatus | None, status: RunStatus) -> Iterator[str | RenderableType]:
    """What has been measured or seen for the first time since `before`, as lines and boards."""
    if isinstance(status, ReasoningStatus):
        yield from _scored(before if isinstance(before, ReasoningStatus) else None, status)
    elif isinstance(status, Status):
        yield from _played(before if isinstance(before, Status) else None, status)


def _played(before: Status | None, status: Status) -> Iterator[str | RenderableType]:
    if status.last_game is not None and (before is None or before.last_game is None):
        yield "the first game is finished"
        yield screen.newest_game(status.last_game, 8, side_by_side=True)
    known = set(before.strength) if before else set()
    for row in status.strength:
        if row not in known:
            text = f"version {row.version} against {row.opponent}: {row.wins}-{row.draws}-{row.losses}, "
            yield f"{text}{screen.percent(row.score)} of the points ({screen.interval(row)})"
    known_mistakes = set(before.mistakes) if before else set()
    for item in status.mistakes:
        if item not in known_mistakes:
            share = screen.percent(item.mistakes)
            lost = f"{share} of the moves lose value ({screen.interval(item)})"
            yield f"version {item.version}, {item.kind}, {item.player}: {lost}"
    if status.baselines and (before is None or before.baselines != status.baselines):
        for line in screen.compared(status.mistakes, status.baselines):
            yield line.plain


def _scored(before: ReasoningStatus | None, status: ReasoningStatus) -> Iterator[str]:
    """One line a measurement: over all levels, then level by level."""
    known = set(before.scores) if before else set()
    fresh = [row for row in status.scores if row not in known]
    if fresh:
        yield f"held-out, version {fresh[0].version}: {'; '.join(map(_score, fresh))}"


def _score(row: Score) -> str:
    right = screen.percent(row.accuracy)
    if row.level is not None:
        return f"level {row.level:g} {right}"
    return f"{right} of {row.problems:,} problems right ({screen.interval(row)}), {row.tokens:.1f} tokens an answer"


def reasoning_progress(status: ReasoningStatus) -> str:
    """A reasoning run in one line."""
    left = f"{screen.clock(status.total_s - status.elapsed_s)} left"
    going = [one_line(status.activity, 200)] if status.activity and status.activity_s >= 2.0 else []
    if status.phase == "warming":
        loss = "" if status.loss is None else f", loss {status.loss:.3f}"
        return ", ".join([*going, f"warm start {status.warm_steps:,} of {status.warm_total:,} steps{loss}", left])
    parts = [f"round {status.rounds:,}", f"{screen.count(status.episodes)} episodes"]
    first, newest = map(reasoning_screen.overall, (status.first_scores, status.scores))
    if newest is not None:
        begun = f"{screen.percent(first.accuracy)} → " if first else ""
        parts.append(f"held-out {begun}{screen.percent(newest.accuracy)}")
    known = (
        ("reward", status.reward, ".2f"), ("length", status.length, ".1f"), ("entropy", status.entropy, ".2f"),
        ("mixed groups", status.mixed_groups, ".0%"), ("KL", status.kl_to_start, ".3f"),
        ("clipped", status.clip_share, ".1%"), ("unverifiable", status.unverifiable or None, ".1%"),
        ("staleness", status.staleness or None, ".1f"), ("frontier level", status.frontier, "g"),
    )  # fmt: skip
    parts += [f"{name} {value:{form}}" for name, value, form in known if value is not None and math.isfinite(value)]
    if status.failures:
        parts.append(f"verification failed{reasoning_screen.failures(status)}")
    if status.lost:
        parts.append(reasoning_screen.lost(status))
    parts.append(f"{screen.count(status.tokens_per_s)} tokens/s")
    return ", ".join([*going, *parts, left])


def progress(status: Status) -> str:
    """A run of games in one line."""
    parts = [one_line(status.activity, 200)] if status.activity else []
    parts += [
        f"{screen.count(status.episodes)} games",
        f"{screen.count(status.positions)} positions at {screen.count(status.positions_per_s)}/s",
        f"net {status.version}",
        f"replay {screen.count(status.window_rows)}/{screen.count(status.window_capacity)}",
    ]
    if status.policy_loss is not None and status.value_loss is not None:
        parts.append(f"loss {status.policy_loss:.3f}+{status.value_loss:.3f}")
    if status.lost.count:
        parts.append(f"{status.lost.count} games lost in flight")
    parts.append(f"{screen.clock(status.total_s - status.elapsed_s)} left")
    return ", ".join(parts)
