"""`selfplay corpus export`: episodes in the formats of other tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from selfplay.cli.console import Console
from selfplay.cli.corpus.common import (
    AsOfOption,
    CorpusArgument,
    EnvOption,
    JsonOption,
    VersionOption,
    load_envs,
    open_corpus,
)
from selfplay.cli.untrusted import say
from selfplay.errors import UserError


def export(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="One of those that `--list` lists.")] = "",
    corpus: CorpusArgument = "",
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A folder that is empty or not there yet.")] = "",
    version: VersionOption = None,
    as_of: AsOfOption = None,
    where: Annotated[str | None, typer.Option(help="SQL over the columns of episodes: which to export.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the format; may be repeated.")
    ] = None,
    env: EnvOption = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the formats and their options.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write episodes in the format of another tool, with a sidecar that names the episode of every row.

    The same version and filter give the same bytes. Nothing is written where anything fails.

    Examples:  selfplay corpus export pgn runs/chess games --where "status = 'ok'"  ·
    selfplay corpus export npz runs/connect_four rows  ·  selfplay corpus export --list
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay.store.export import FORMATS, find
    from selfplay.store.export import export as write

    if list_them:
        _list(as_json)
        return
    if not format_name or not corpus or not destination:
        raise UserError(f"say FORMAT, CORPUS and DEST; the formats are {', '.join(FORMATS)}")
    find(format_name)  # a wrong name is told before anything is opened
    load_envs(env)
    opened = open_corpus(corpus, version, as_of)
    options = dict(_pair(text) for text in option or ())
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=opened.count() if where is None else None)
        done = write(opened, format_name, destination, where, options, lambda rows: progress.advance(task, rows))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    say(f"{done.rows:,} rows of {done.episodes:,} episodes (version {done.version}) are in {done.destination}")
    for reason, count in sorted(done.left_out.items()):
        say(f"left out: {count:,} episodes, {reason}")
    say("next: export.json says what it holds, export_rows.parquet from which episode each row is")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--option {text!r} is not of the form NAME=VALUE")
    return name, value


def _list(as_json: bool) -> None:
    from rich.table import Table

    from selfplay.store.export import FORMATS

    if as_json:
        names = ("name", "summary", "kinds", "needs", "extra", "options")
        typer.echo(json.dumps([{name: getattr(one, name) for name in names} for one in FORMATS.values()]))
        return
    table = Table("format", "of", "what it is", "options", box=None, pad_edge=False, header_style="dim")
    for one in FORMATS.values():
        options = "\n".join(f"{name}: {meaning}" for name, meaning in one.options.items())
        table.add_row(one.name, ", ".join(one.kinds), one.summary, options)
    console = Console(highlight=False)
    console.print(table)
    console.print("\noptions are given as --option NAME=VALUE, such as --option accepted=only")
