"""`selfplay corpus diff`: what one version has and another has not."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from selfplay.cli.corpus.common import CorpusArgument, JsonOption
from selfplay.cli.untrusted import cell, say

#: Ids that a terminal is shown, of each side.
_SHOWN = 10


def diff(
    before: Annotated[int, typer.Argument(help="The earlier version of the table.", min=0)],
    after: Annotated[int, typer.Argument(help="The later one.", min=0)],
    corpus: CorpusArgument,
    as_json: JsonOption = False,
) -> None:
    """Tell which episodes came and went between two versions. Compaction moves episodes and changes nothing here.

    Example:  selfplay corpus diff 10 20 runs/connect_four
    """
    from selfplay.store.table.changes import difference

    found = difference(corpus, before, after)
    if as_json:
        typer.echo(json.dumps({"before": before, "after": after, "added": found.added, "removed": found.removed}))
        return
    for sign, ids in (("+", found.added), ("-", found.removed)):
        for episode_id in ids[:_SHOWN]:
            say(f"{sign} {cell(episode_id)}")
        if len(ids) > _SHOWN:
            say(f"{sign} … and {len(ids) - _SHOWN:,} more (--json lists all)")
    say(f"{len(found.added):,} added, {len(found.removed):,} removed from version {before} to {after}")
