"""`selfplay corpus annotate`: say something of episodes that are sealed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from selfplay.cli.corpus.common import CorpusArgument, ElsewhereOption, JsonOption, to_change
from selfplay.cli.untrusted import say
from selfplay.commands import command
from selfplay.errors import UserError


def annotate(
    file: Annotated[str, typer.Argument(help="JSON lines with episode_id, name, value, perhaps step. -: stdin.")],
    corpus: CorpusArgument,
    author: Annotated[str, typer.Option(help="Who says it.")],
    source: Annotated[str, typer.Option(help="The tool that found it, with its version; or how it was found.")],
    elsewhere: ElsewhereOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add labels to episodes, all or none; doing it again changes nothing. Episodes themselves never change.

    A line of the file:  {"episode_id": "RUN/p0000/1000/17", "name": "blunder", "value": true, "step": 3}

    Example:  selfplay corpus annotate labels.jsonl runs/connect_four --author ana --source "blunder-finder 1.2"
    """
    from selfplay.store.corpus.annotations import annotate as add
    from selfplay.store.corpus.annotations import read_labels

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error.strerror if isinstance(error, OSError) else error}") from None
    place = to_change(corpus, elsewhere)
    added = add(place, read_labels(text.splitlines(), file), author, source)
    if as_json:
        typer.echo(json.dumps({"added": added}))
        return
    many = f"{added:,} {'label was' if added == 1 else 'labels were'} added"
    say(many if added else "the same labels were there already")
    newest = "from annotations order by recorded_at desc limit 5"
    say(f"next: {command('corpus', 'query', newest, corpus)}")
