"""`selfplay corpus query`: SQL over the tables of a corpus."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from selfplay.cli.console import Console
from selfplay.cli.corpus.common import AsOfOption, CorpusArgument, JsonOption, VersionOption, open_corpus
from selfplay.cli.untrusted import cell

#: Rows that a terminal is shown.
_SHOWN = 40
_SHOWN_CHARACTERS = 5000


def query(
    sql: Annotated[str, typer.Argument(help="One statement of DuckDB's SQL.")],
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Let the SQL read and write any file of yours and use the network."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer SQL over episodes, steps, candidates, seats, verdicts and the side tables.

    Values are in the game's own utility units, from the point of view of the seat to act. With --json one object a
    row, a row a line. The SQL sees these tables only: it can neither open files nor use the network.

    Examples:  selfplay corpus query "select status, count(*) from episodes group by 1" runs/connect_four  ·
    selfplay corpus query "select step, avg(surprise) from steps group by 1 order by 1" runs/connect_four
    """
    from selfplay.store.corpus.query import query as ask

    names, rows = ask(open_corpus(corpus, version, as_of), sql, unsafe)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(dict(zip(names, row, strict=True)), default=str))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(Text(cell(name)))
    for row in rows[:_SHOWN]:
        table.add_row(*(Text(cell(value, _SHOWN_CHARACTERS)) for value in row))
    console = Console(highlight=False)
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f"[dim]{len(rows) - _SHOWN:,} more rows: say --json, or LIMIT[/]")
