"""Status in, rich renderables out: pure functions that draw a run; no state, no terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.align import Align
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.errors import MarkupError
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from selfplay.cli.untrusted import one_line
from trainers.alphazero.status import BaselineRow, Candidate, LastGame, MistakesRow, RatingPoint, Status, StrengthRow
from trainers.reasoning.status import ReasoningStatus, Score

ACCENT = "cyan"
DIM = "grey58"
GOOD = "green3"
FAIR = "yellow3"
POOR = "red3"
TRACK = "grey27"
SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def count(number: float) -> str:
    """Grouped by thousands up to 999,999, then "1.23M"."""
    if number >= 1e9:
        return f"{number / 1e9:.2f}G"
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number:,.0f}"


def percent(share: float) -> str:
    """A share in [0, 1]; with a decimal where it is below 10%, so that small changes show."""
    return f"{100 * share:.1f}%" if share < 0.0995 else f"{100 * share:.0f}%"


def bar(share: float, width: int, style: str = ACCENT) -> Text:
    """A share in [0, 1] as a bar of `width` characters, to an eighth of a character."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    text = Text("█" * full, style=style)
    if full < width:
        text.append(EIGHTHS[rest], style=f"{style} on {TRACK}")
        text.append(" " * (width - full - 1), style=f"on {TRACK}")
    return text


def spark(values: Sequence[float], width: int, scale: tuple[float, float] | None = None) -> str:
    """The course of `values`, oldest first, as a line of `width` characters at most; `scale`: of its lowest and highest
    character, where they are not the least and the greatest value."""
    if len(values) > width:
        step = len(values) / width
        values = [values[min(len(values) - 1, int((i + 1) * step) - 1)] for i in range(width)]
    if not values:
        return ""
    low, high = scale or (min(values), max(values))
    span = high - low
    shares = [(value - low) / span if 0 < span < math.inf else 0.0 for value in values]
    return "".join(SPARKS[round(min(1.0, max(0.0, share)) * (len(SPARKS) - 1))] for share in shares)


def score_style(score: float) -> str:
    return GOOD if score >= 0.8 else FAIR if score >= 0.5 else POOR


def markup(text: str) -> Text:
    """Rich markup as text; text that is no valid markup as it stands."""
    try:
        return Text.from_markup(text)
    except MarkupError:
        return Text(text)


def going_on(status: Status | ReasoningStatus) -> str:
    """The activity with its time, where it takes a while: "saving a checkpoint, 0:12 of about 0:15"."""
    text = one_line(status.activity, 200)
    if not text or status.activity_s < 2.0:
        return text
    expected = status.activity_expected_s
    return f"{text}, {clock(status.activity_s)}" + ("" if expected is None else f" of about {clock(expected)}")


def header(status: Status, width: int) -> RenderableType:
    """Name, phase, progress and time left."""
    phase = {
        "starting": f"[{FAIR}]●[/] {going_on(status) or 'starting'}",
        "playing": f"[{GOOD}]●[/] {going_on(status) or 'playing and learning'}",
        "draining": f"[{FAIR}]●[/] {going_on(status) or 'finishing: games are sealed and saved'}",
        "finished": f"[{ACCENT}]●[/] finished",
    }[status.phase]
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    left = max(0.0, status.total_s - status.elapsed_s)
    grid.add_row(
        Text.assemble((f" {status.recipe} ", f"bold reverse {ACCENT}"), "  ", Text.from_markup(phase)),
        Text.assemble((clock(left), "bold"), (" left ", DIM)) if status.total_s else Text(""),
    )
    share = status.elapsed_s / status.total_s if status.total_s else 0.0
    return Group(grid, bar(share, max(10, width)))


def candidates(rows: Iterable[Candidate], limit: int) -> RenderableType:
    """What the search weighed: move, share of the visits, prior, value for the seat to act."""
    rows = sorted(rows, key=lambda row: (-row.visits, -row.prior))
    total = max(1, sum(row.visits for row in rows))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style=DIM, pad_edge=False)
    table.add_column("move")
    table.add_column("visits")
    table.add_column("", justify="right")
    table.add_column("prior", justify="right")
    table.add_column("value", justify="right")
    for row in rows[:limit]:
        style = "bold" if row.chosen else ""
        q = Text("·", style=DIM) if row.q is None else Text(f"{row.q:+.2f}", GOOD if row.q > 0.05 else "")
        if row.q is not None and row.q < -0.05:
            q.stylize(POOR)
        move = Text.assemble(("▸ " if row.chosen else "  ", ACCENT), (row.text, style))
        table.add_row(move, bar(row.visits / total, 10), Text(str(row.visits), style), percent(row.prior), q)
    if len(rows) > limit:
        table.add_row(Text(f"  and {len(rows) - limit} more", DIM), "", "", "", "")
    return table


def newest_game(game: LastGame, limit: int, side_by_side: bool) -> RenderableType:
    """The newest finished game as a board, with what the search preferred."""
    board = Group(markup(game.board), Text.assemble((game.result, "bold"), (f", {game.plies} moves", DIM)))
    if not game.candidates:
        return board
    weighed = Group(Text(game.caption or "what the search weighed", DIM), candidates(game.candidates, limit))
    if not side_by_side:
        return Group(board, Text(""), weighed)
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_row(board, Padding(weighed, (1, 0, 0, 0)))
    return grid


def numbers(status: Status) -> RenderableType:
    """Games, speed, net version, replay window, losses."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=DIM)
    grid.add_column()
    grid.add_row("games", f"{count(status.episodes)}, all archived")
    grid.add_row("positions", f"{count(status.positions)} [{DIM}]at[/] {count(status.positions_per_s)}/s")
    grid.add_row("net", f"version {status.version}" if status.version else "untrained (version 0)")
    if status.window_capacity:
        size = f" {count(status.window_rows)} of {count(status.window_capacity)}"
        grid.add_row("replay", Text.assemble(bar(status.window_rows / status.window_capacity, 10), size))
    else:
        grid.add_row("replay", Text("empty", DIM))
    if status.policy_loss is not None and status.value_loss is not None:
        line = spark([policy + value for policy, value in status.loss_history], 10)
        text = f"policy {status.policy_loss:.3f}  value {status.value_loss:.3f}  "
        grid.add_row("loss", Text.assemble(text, (line, ACCENT)))
    else:
        grid.add_row("loss", Text("training starts when the replay has filled", DIM))
    if status.cores and status.cores_at_work:
        grid.add_row("cores", at_work(status.busy, status.cores))
    if status.ratings:
        newest = status.ratings[-1]
        line = spark([point.elo for point in status.ratings], 12)
        grid.add_row("rating", Text.assemble(rating(newest), "  ", (line, ACCENT)))
    if status.lost.count:
        grid.add_row("lost", Text(f"{status.lost.count} games in flight, {status.lost.plies} moves", POOR))
    return grid


def at_work(busy: Mapping[str, float], cores: int) -> Text:
    """How many of the cores are at work, and for whom."""
    shares = ", ".join(f"{who} {number:.1f}" for who, number in busy.items() if number >= 0.05)
    return Text.assemble(f"{sum(busy.values()):.1f} of {cores} at work", (f": {shares}", DIM))


def rating(point: RatingPoint) -> Text:
    """Elo, with its interval, above random play."""
    return Text.assemble((f"{point.elo:+.0f}", "bold"), (f" Elo ({point.low:+.0f} to {point.high:+.0f})", DIM))


def strength(
    rows: Sequence[StrengthRow], mistakes: Sequence[MistakesRow], baselines: Sequence[BaselineRow] = ()
) -> RenderableType:
    """Newest match against each opponent, and mistakes against exact play beside those of simple players."""
    if not rows and not mistakes:
        return Text("the first match is being played", DIM)
    parts: list[RenderableType] = []
    if rows:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style=DIM, pad_edge=False)
        for name in ("against", "net", "W-D-L", "", ""):
            table.add_column(name, justify="right" if name in ("net", "W-D-L") else "left", no_wrap=True)
        for row in rows:
            style = score_style(row.score)
            share = Text.assemble((percent(row.score), f"bold {style}"), (f" {interval(row)}", DIM))
            table.add_row(row.opponent, f"v{row.version}", f"{row.wins}-{row.draws}-{row.losses}",
                          bar(row.score, 10, style), share)  # fmt: skip
        parts.append(table)
    if mistakes:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style=DIM, pad_edge=False)
        for name in ("moves that lose game value", "net", "", ""):
            table.add_column(name, justify="right" if name == "net" else "left", no_wrap=True)
        for item in mistakes:
            share = Text.assemble(percent(item.mistakes), (f" {interval(item)}", DIM))
            table.add_row(shown(item), f"v{item.version}", bar(item.mistakes, 10, POOR), share)
        parts += [Text("")] if rows else []
        parts += [table, *compared(mistakes, baselines)]
    return Group(*parts)


def shown(row: MistakesRow) -> str:
    """Kind of positions and player: "quiet, 64 simulations"."""
    return f"{row.kind.removesuffix(' positions')}, {row.player}"


def compared(mistakes: Sequence[MistakesRow], baselines: Sequence[BaselineRow]) -> list[Text]:
    """For each kind of positions: what they are, how many of them cannot be misplayed, and what simple players do."""
    of_kind: dict[str, MistakesRow] = {}
    for row in mistakes:
        of_kind.setdefault(row.kind, row)
    lines = []
    for kind, first in of_kind.items():
        players = ", ".join(
            f"{one.player} {percent(one.mistakes)}" + (f" ({interval(one)})" if one.low < one.high else "")
            for one in baselines
            if one.kind == kind
        )
        if players and first.safe is not None:
            lines.append(Text(f"{described(kind, first.positions, first.safe)}: {players}", DIM))
    return lines


def described(kind: str, positions: int, safe: float) -> str:
    """Test positions of a kind in words, with how many there are and the share in which no move is a mistake."""
    drawn = {"random positions": " reached by random moves", "quiet positions": " of them, where no move ends the game"}
    return f"{kind} ({positions:,}{drawn.get(kind, '')}; {percent(safe)} cannot be misplayed)"


def interval(row: StrengthRow | MistakesRow | BaselineRow | Score) -> str:
    """Of a share in [0, 1], in per cent; with a decimal where the share has one."""
    places = 1 if row.high < 0.1 else 0
    return f"{100 * row.low:.{places}f}–{100 * row.high:.{places}f}"


def compact(status: Status) -> RenderableType:
    """Numbers and strength without frames, for a terminal with few lines."""
    line = (
        f" {count(status.episodes)} games, {count(status.positions)} positions at {count(status.positions_per_s)}/s, "
        f"net {status.version}, replay {count(status.window_rows)}"
    )
    if status.policy_loss is not None and status.value_loss is not None:
        line += f", loss {status.policy_loss:.2f}+{status.value_loss:.2f}"
    return Group(Text(line, no_wrap=True, overflow="ellipsis"), Padding(strength(status.strength, ()), (0, 1)))


def screen(status: Status, width: int, height: int) -> RenderableType:
    """The whole live screen, fitted to `width` x `height` characters; what does not fit is cut at the bottom."""
    wide = width >= 100
    low = height < (24 if wide else 38)
    board_lines = status.last_game.board.count("\n") + 2 if status.last_game else 3
    limit = max(3, height - 12 - board_lines) if wide else max(3, min(8, board_lines - 3))
    if status.last_game is None:
        game: RenderableType = Align.center(Text("the first game is being played", DIM))
    else:
        game = newest_game(status.last_game, limit, side_by_side=not wide)
    board = panel("newest game", game)
    run = panel("run", numbers(status))
    roomy = height >= (34 if wide else 46)
    levels = panel("strength", strength(status.strength, status.mistakes, status.baselines if roomy else ()))
    body: RenderableType
    if wide:
        body = Table.grid(expand=True, padding=(0, 0))
        body.add_column(ratio=9)
        body.add_column(ratio=11)
        body.add_row(board, Group(run, levels))
    else:
        body = Group(board, compact(status)) if low else Group(board, run, levels)
    return Group(header(status, width), body, *notes(status, low))


@dataclass(frozen=True)
class Cropped:
    """The first `most` lines of `content`; of a text that is cut, a mark and its last line end them."""

    content: RenderableType
    most: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.content, options.update(height=None), pad=False)
        if isinstance(self.content, Text) and len(lines) > self.most > 2:
            lines = [*lines[: self.most - 2], [Segment("…")], lines[-1]]
        for line in lines[: max(0, self.most)]:
            yield from line
            yield Segment.line()


def panel(title: str, content: RenderableType, height: int | None = None) -> Panel:
    """A frame with a title; `height`: lines, frame included, to which what is in it is cut or filled up."""
    heading = f"[bold]{title}[/]"
    return Panel(
        content, title=heading, title_align="left", border_style=TRACK, box=box.ROUNDED, padding=(0, 1), height=height
    )


def notes(status: Status | ReasoningStatus, low: bool) -> list[RenderableType]:
    """The lines at the bottom: what a person must know, how to stop, where it is saved; one line each."""
    hint = "Ctrl-C again: give up what is not saved" if status.phase == "draining" else "Ctrl-C: save and stop"
    line = Text.assemble((f" {hint}", ACCENT), (f"  ·  {status.out}", DIM), no_wrap=True, overflow="ellipsis")
    lines: list[RenderableType] = [
        Text(f" {one_line(message, 300)}", FAIR, no_wrap=True, overflow="ellipsis")
        for message in status.messages[-1 if low else -2 :]
    ]
    if status.sizing and not low:
        lines.append(Text(f" {status.sizing}", DIM, no_wrap=True, overflow="ellipsis"))
    return [*lines, line]
