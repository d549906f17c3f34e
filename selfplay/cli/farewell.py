"""The last screen of a run: the first net beside the last, where the data are, what to do next.

Of a reasoning run: held-out accuracy at first and at last, a right answer and a wrong one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfplay.cli import plain_screen, reasoning_screen, screen
from selfplay.cli.untrusted import one_line
from selfplay.commands import command
from trainers.alphazero.status import MistakesRow, Status, StrengthRow, Summary
from trainers.reasoning.status import ReasoningStatus, ReasoningSummary, Sample, Score
from trainers.run.kind import RunSummary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

#: How a reasoning run ended, in words.
_ENDED = {
    "time": "finished",
    "rounds": "finished, all rounds done",
    "target": "finished, the accuracy aimed at is reached",
    "interrupted": "stopped; everything is saved",
}


def farewell(summary: RunSummary, file: str = "") -> RenderableType:
    """Everything that stays on the terminal when a run has ended.

    file: the rules or questions of the run, where they are a file of the user's own: commands have to name it.
    """
    if isinstance(summary, ReasoningSummary):
        return _of_answers(summary, file)
    return _of_games(summary, file) if isinstance(summary, Summary) else plain_screen.farewell(summary)


def _of_games(summary: Summary, file: str) -> RenderableType:
    status = summary.status
    parts: list[RenderableType] = [headline(summary), Text("")]
    if status.last_game is not None:
        parts += [screen.newest_game(status.last_game, 7, side_by_side=True), Text("")]
    if status.strength or status.mistakes:
        parts += [comparison(status), Text(""), *_by_set(status.mistakes)]
        parts += [*screen.compared(status.mistakes, status.baselines), Text("")]
    parts += [Text(message, screen.FAIR) for message in status.messages[-3:]]
    return Group(*parts, next_steps(status, file))


def _of_answers(summary: ReasoningSummary, file: str) -> RenderableType:
    status = summary.status
    parts: list[RenderableType] = [reasoning_headline(summary), Text("")]
    if status.scores:
        parts += [accuracy(status), Text("")]
    for chosen in _right_and_wrong(status.samples):
        parts += [reasoning_screen.sample(chosen, 96, 10), Text("")]
    parts += [Text(one_line(message, 1000), screen.FAIR) for message in status.messages[-3:]]
    return Group(*parts, archived(status), Text(""), reasoning_steps(status, file))


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
                          (f" {screen.interval(row)}  {row.wins}-{row.draws}-{row.losses}", screen.DIM)),  # fmt: skip
            screen.bar(row.score, 8, screen.score_style(row.score)),
        )
    wrong = {(row.kind, row.player): row for row in status.first_mistakes}
    for item in status.mistakes:
        table.add_row(
            f"moves that lose, {screen.shown(item)}",
            _mistakes(wrong.get((item.kind, item.player)), item),
            Text.assemble((f"v{item.version} ", screen.DIM), (screen.percent(item.mistakes), "bold"),
                          (f" {screen.interval(item)}", screen.DIM)),  # fmt: skip
            screen.bar(item.mistakes, 8, screen.POOR),
        )
    if len(status.ratings) > 1:
        table.add_row("rating, random = 0", screen.rating(status.ratings[0]), screen.rating(status.ratings[-1]), "")
    return table


def _score(first: StrengthRow | None, last: StrengthRow) -> Text:
    if first is None or first.version == last.version:
        return Text("–", screen.DIM)
    return Text.assemble((f"v{first.version} ", screen.DIM), screen.percent(first.score))


def _mistakes(first: MistakesRow | None, last: MistakesRow) -> Text:
    if first is None or first.version == last.version:
        return Text("–", screen.DIM)
    return Text.assemble((f"v{first.version} ", screen.DIM), screen.percent(first.mistakes))


def _by_set(rows: Sequence[MistakesRow]) -> list[Text]:
    """The shares on each of several sets of positions, in per cent, a line for each kind and player."""
    return [
        Text(f"{screen.shown(row)}: {', '.join(f'{name} {100 * share:.1f}' for name, share in row.by_set)}", screen.DIM)
        for row in rows
        if len(row.by_set) > 1
    ]


def next_steps(status: Status, file: str = "") -> RenderableType:
    """Where the corpus is and the commands that use it."""
    steps = [(going_on(status.out, file), "go on from here")]
    if status.episodes:
        steps = [
            (command("play", status.out, *_trusted(file)), "play against it"),
            *steps,
            (command("corpus", "show", "latest", status.corpus, *_with(file)), "the newest game, move by move"),
            (command("corpus", "verify", status.corpus, *_with(file)), "replay every game and check it"),
        ]
    return Group(_place("corpus", status.corpus, "a Delta Lake table"), Text(""), Steps(steps))


def going_on(out: str, file: str = "") -> str:
    """The command that continues the run in `out`."""
    return command("run", "--out", out, *_trusted(file))


def _trusted(file: str) -> tuple[str, ...]:
    return ("--trust",) if file else ()


def _with(file: str) -> tuple[str, ...]:
    return ("--env", file) if file else ()


def _place(what: str, where: str, meaning: str) -> Text:
    """One line however narrow the terminal is, which breaks it without a line feed: it can be copied."""
    return Text.assemble(
        f"{what}: ", (where, "bold"), (f" ({meaning})", screen.DIM), no_wrap=True, overflow="ignore"
    )


@dataclass(frozen=True)
class Steps:
    """Commands and what each is for: side by side, or one below the other where the terminal is too narrow.

    To be printed without cropping: the terminal itself breaks a command that is longer than a line, so that it is
    copied as one.
    """

    rows: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = max(cell_len(command) for command, _ in self.rows)
        if wide + 3 + max(cell_len(meaning) for _, meaning in self.rows) <= options.max_width:
            grid = Table.grid(padding=(0, 3, 0, 0))
            grid.add_column(style="bold", no_wrap=True)
            grid.add_column(style=screen.DIM)
            for command, meaning in self.rows:
                grid.add_row(Text(command), meaning)
            yield grid
            return
        for command, meaning in self.rows:
            yield Text(f"{meaning}:", screen.DIM)
            yield Text(command, "bold", no_wrap=True, overflow="ignore")


def reasoning_headline(summary: ReasoningSummary) -> RenderableType:
    """How it ended, how long it took, and what became of the held-out accuracy."""
    status = summary.status
    first, newest = map(reasoning_screen.overall, (status.first_scores, status.scores))
    text = Text.assemble(
        (f" {one_line(status.recipe, 60)} ", f"bold reverse {screen.ACCENT}"),
        f" {_ENDED[summary.ended_by]}, {screen.clock(status.elapsed_s)}: ",
    )
    if newest is None:
        return text.append("no held-out problem was answered yet")
    text.append("held-out accuracy ")
    if first is not None and first.version != newest.version:
        text.append(f"{screen.percent(first.accuracy)} → ")
    text.append(screen.percent(newest.accuracy), f"bold {screen.score_style(newest.accuracy)}")
    return text.append(f", version {status.version}")


def accuracy(status: ReasoningStatus) -> RenderableType:
    """A row a level: the first version's share of right answers and their length, the last version's."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("held-out", no_wrap=True)
    for name in ("first", "last", "", "tokens"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    before = {row.level: row for row in status.first_scores}
    rows = sorted(status.scores, key=lambda row: float("-inf") if row.level is None else row.level)
    for row in rows:
        first = before.get(row.level)
        style = screen.score_style(row.accuracy)
        table.add_row(
            Text("all levels", "bold") if row.level is None else Text(f"level {row.level:g}"),
            _first(first, row),
            Text.assemble((f"v{row.version} ", screen.DIM), (screen.percent(row.accuracy), f"bold {style}"),
                          (f" {screen.interval(row):>6}", screen.DIM)),  # fmt: skip
            screen.bar(row.accuracy, 16, style),
            f"{first.tokens:.1f} → {row.tokens:.1f}" if first and first != row else f"{row.tokens:.1f}",
        )
    return table


def _first(first: Score | None, last: Score) -> Text:
    if first is None or first.version == last.version:
        return Text("–", screen.DIM)
    return Text.assemble((f"v{first.version} ", screen.DIM), screen.percent(first.accuracy))


def _right_and_wrong(samples: Sequence[Sample]) -> list[Sample]:
    """The newest of each, where there are any."""
    judged = [one for one in samples if one.reward is not None]
    right = [one for one in judged if reasoning_screen.verdict(one.reward)[1] == screen.GOOD]
    return [*right[:1], *[one for one in judged if one not in right][:1]]


def archived(status: ReasoningStatus) -> RenderableType:
    """What the corpus holds, and where it is."""
    counted = Text.assemble(
        "archived: ", (screen.count(status.episodes), "bold"), " episodes, the wrong answers too; ",
        (screen.count(status.tokens), "bold"), " tokens sampled",
        (f"; {reasoning_screen.lost(status)}" if status.lost else "", screen.POOR),
    )  # fmt: skip
    return Group(
        counted,
        _place("corpus", status.corpus, "a Delta Lake table"),
        _place("policy", f"{status.out}/policy", "a Hugging Face model directory"),
    )


def reasoning_steps(status: ReasoningStatus, file: str = "") -> RenderableType:
    """The commands that use what a reasoning run leaves."""
    corpus = status.corpus or status.out
    steps = [(going_on(status.out, file), "go on from here")]
    if status.episodes:
        steps += [
            (command("corpus", "show", "latest", corpus), "the newest answer and its verdict"),
            (command("corpus", "verify", corpus, *_with(file)), "judge every answer again"),
            (command("corpus", "export", "messages", corpus, "chats"), "as chats, for other trainers"),
        ]
    if "://" not in status.out:
        policy = json.dumps(f"{status.out}/policy", ensure_ascii=False)
        steps.append((f"AutoModelForCausalLM.from_pretrained({policy})", "load it with transformers"))
    return Steps(steps)
