"""The last screen of a run: the first net beside the last, where the data are, what to do next."""

from __future__ import annotations

import shlex

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfplay.cli import screen
from trainers.status import ExactRow, Status, StrengthRow, Summary


def farewell(summary: Summary) -> RenderableType:
    """Everything that stays on the terminal when a run has ended."""
    status = summary.status
    parts: list[RenderableType] = [headline(summary), Text("")]
    if status.last_game is not None:
        parts += [screen.newest_game(status.last_game, 7, side_by_side=True), Text("")]
    if status.strength or status.exact:
        parts += [comparison(status), Text("")]
    parts += [Text(message, screen.FAIR) for message in status.messages[-3:]]
    return Group(*parts, next_steps(status))


def headline(summary: Summary) -> RenderableType:
    status = summary.status
    how = "stopped; everything is saved" if summary.ended_by == "interrupted" else "finished"
    return Text.assemble(
        (f" {status.recipe} ", f"bold reverse {screen.ACCENT}"),
        f" {how}, {screen.clock(status.elapsed_s)}: ",
        (screen.count(status.episodes), "bold"),
        " games, ",
        (screen.count(status.positions), "bold"),
        " positions, ",
        (str(status.version), "bold"),
        " versions",
        (f"; {status.lost.count} games lost" if status.lost.count else "", screen.POOR),
    )


def comparison(status: Status) -> RenderableType:
    """A row an opponent and a kind of position: the first net's figure, the last net's."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("first net", "last net"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    before = {row.opponent: row for row in status.first_strength}
    for row in status.strength:
        table.add_row(
            f"points against {row.opponent}",
            _score(before.get(row.opponent), row),
            Text.assemble((f"v{row.version} ", screen.DIM), (screen.percent(row.score), "bold"),
                          (f"  {row.wins}-{row.draws}-{row.losses}", screen.DIM)),  # fmt: skip
            screen.bar(row.score, 8, screen.score_style(row.score)),
        )
    wrong = {row.label: row for row in status.first_exact}
    for item in status.exact:
        table.add_row(
            f"moves that lose, {item.label}",
            _mistakes(wrong.get(item.label), item),
            Text.assemble((f"v{item.version} ", screen.DIM), (screen.percent(item.mistakes), "bold")),
            screen.bar(item.mistakes, 8, screen.POOR),
        )
    if len(status.ratings) > 1:
        table.add_row("rating", screen.rating(status.ratings[0]), screen.rating(status.ratings[-1]), "")
    return table


def _score(first: StrengthRow | None, last: StrengthRow) -> Text:
    if first is None or first.version == last.version:
        return Text("–", screen.DIM)
    return Text.assemble((f"v{first.version} ", screen.DIM), screen.percent(first.score))


def _mistakes(first: ExactRow | None, last: ExactRow) -> Text:
    if first is None or first.version == last.version:
        return Text("–", screen.DIM)
    return Text.assemble((f"v{first.version} ", screen.DIM), screen.percent(first.mistakes))


def next_steps(status: Status) -> RenderableType:
    """Where the corpus is and the commands that use it."""
    out, corpus = shlex.quote(status.out), shlex.quote(status.corpus)
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="bold", no_wrap=True, overflow="fold")
    grid.add_column(style=screen.DIM)
    grid.add_row(f"selfplay play {out}", "play against it")
    grid.add_row(f"selfplay run --out {out}", "go on from here")
    grid.add_row(f"selfplay corpus show latest {corpus}", "the newest game, move by move")
    grid.add_row(f"selfplay corpus verify {corpus}", "replay every game and check it")
    place = Text.assemble("corpus: ", (status.corpus, "bold"), (" (a Delta Lake table)", screen.DIM))
    return Group(place, Text(""), grid)
