"""`selfplay corpus tail`: new episodes as they are archived."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from selfplay.cli.corpus.common import CorpusArgument, JsonOption, open_corpus
from selfplay.cli.untrusted import cell, say
from selfplay.commands import command

_COLUMNS = ("episode_id", "kind", "env_id", "status", "n_steps", "returns")


def tail(
    corpus: CorpusArgument,
    after: Annotated[
        int | None, typer.Option(help="Go on after this version of the table; default: the present one.", min=-1)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long; default: never.", min=0)] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow new episodes live, each once, across compaction; Ctrl-C ends it and says where to go on.

    --after -1 begins with the first episode ever archived. With --json one object a line, with the version it came
    with: after a stop, go on from the last version of which you have everything.

    Example:  selfplay corpus tail runs/connect_four --after 120 --json
    """
    from selfplay.store.table.changes import follow

    opened = open_corpus(corpus, None)
    version = opened.version if after is None else after
    until = None if seconds is None else time.monotonic() + seconds
    try:
        for news in follow(opened.uri, version, _COLUMNS, until=until):
            for row in news.episodes.to_pylist():
                if as_json:
                    typer.echo(json.dumps({"version": news.version, **row}))
                else:
                    returns = "" if row["returns"] is None else " : ".join(f"{value:+g}" for value in row["returns"])
                    say(f"{cell(row['episode_id'])}  {cell(row['status'])}  {row['n_steps']} steps  {returns}")
            version = news.version
    except KeyboardInterrupt:
        pass
    if not as_json:
        say(f"next: `{command('corpus', 'tail', corpus, '--after', str(version))}`")
