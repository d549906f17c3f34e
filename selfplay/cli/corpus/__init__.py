"""`selfplay corpus`: look at archived episodes, count them, ask about them, and check that they are true."""

from __future__ import annotations

import typer

from selfplay.cli.corpus.annotate import annotate
from selfplay.cli.corpus.diff import diff
from selfplay.cli.corpus.export import export
from selfplay.cli.corpus.key import key
from selfplay.cli.corpus.lineage import lineage
from selfplay.cli.corpus.prove import prove
from selfplay.cli.corpus.query import query
from selfplay.cli.corpus.release import release
from selfplay.cli.corpus.show import show
from selfplay.cli.corpus.stats import stats
from selfplay.cli.corpus.tail import tail
from selfplay.cli.corpus.upkeep import compact, delete_run, vacuum
from selfplay.cli.corpus.verify import verify

app = typer.Typer(
    no_args_is_help=True,
    help="""Show, count, query, verify, follow, export and keep archived episodes.

    Examples:  selfplay corpus show latest runs/connect_four  ·  selfplay corpus stats runs/connect_four --json  ·
    selfplay corpus verify s3://bucket/corpus""",
)
for verb in (
    show, stats, query, verify, lineage, diff, tail, annotate, export, release, prove, key, compact, delete_run, vacuum,
):  # fmt: skip
    app.command()(verb)
