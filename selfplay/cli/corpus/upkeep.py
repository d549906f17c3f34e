"""`selfplay corpus compact`, `delete-run` and `vacuum`: upkeep."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from selfplay import store
from selfplay.cli.corpus.common import CorpusArgument, ElsewhereOption, JsonOption, to_change
from selfplay.cli.untrusted import say
from selfplay.commands import command


def compact(
    corpus: CorpusArgument,
    target_mb: Annotated[int, typer.Option(help="Size of the files to come, MB.", min=1)] = 128,
    elsewhere: ElsewhereOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rewrite many small files into few large ones; beside writers and readers. No episode changes.

    Example:  selfplay corpus compact runs/connect_four
    """
    from selfplay.store.table import maintenance

    done = maintenance.compact(to_change(corpus, elsewhere), target_mb * 10**6)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    say(f"{done.files_before:,} files became {done.files_after:,} (version {done.version})")
    if done.side_after < done.side_before:
        say(f"of the side tables, {done.side_before:,} became {done.side_after:,}")
    say(f"next: `{command('corpus', 'vacuum', corpus)}` shows what room the old files take")


def delete_run(
    run_id: Annotated[str, typer.Argument(help="The run, as `selfplay corpus stats` lists it.")],
    corpus: CorpusArgument,
    why: Annotated[
        str, typer.Option("--why", "--reason", help="The reason; it stays in the log and in the table of deletions.")
    ] = "no reason given",
    elsewhere: ElsewhereOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a run out of the corpus. Older versions keep it until `vacuum`.

    The table `deletions` keeps which episodes were taken out, and why: for `verify` they are not missing then.

    Example:  selfplay corpus delete-run connect_four-20260101-000000-1 s3://bucket/corpus --why "wrong rules"
    """
    from selfplay.store.table import maintenance

    done = maintenance.delete_run(to_change(corpus, elsewhere), run_id, why)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    say(f"{done.episodes:,} episodes of {run_id} are not in version {done.version} any more")
    say(f"next: `{command('corpus', 'vacuum', corpus)}` gives back the room, and ends the versions that hold them")


def vacuum(
    corpus: CorpusArgument,
    hours: Annotated[float, typer.Option(help="Keep what is younger.", min=0)] = 168.0,
    log_days: Annotated[
        float | None,
        typer.Option(help="Also delete history (log entries, replaced files) that is older and not released.", min=0),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would go.")] = False,
    elsewhere: ElsewhereOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete files that neither the newest version nor a release needs; says which versions that ends.

    With --log-days, older versions can no longer be opened, nor followed by `tail`, except those that were released. A
    run does the same by itself, for versions older than its setting run.keep_days (7 days unless set).

    Example:  selfplay corpus vacuum runs/connect_four --log-days 30 --yes
    """
    from selfplay.store.table import log_trim, maintenance, side_tables

    place = to_change(corpus, elsewhere)
    found = maintenance.vacuum(place, hours, dry_run=not yes)
    trimmed = None if log_days is None else log_trim.trim_log(place, log_days, dry_run=not yes)
    if yes:
        side_tables.give_back(store.open(place).uri)
    if as_json:
        log = None if trimmed is None else asdict(trimmed)
        typer.echo(json.dumps({**asdict(found), "log": log, "done": yes}))
        return
    verb = "were deleted" if yes else "would be deleted"
    if trimmed is not None:
        kept = f", and {len(trimmed.kept):,} before it" if trimmed.kept else ""
        say(f"log: {trimmed.files:,} files, {trimmed.bytes / 1e6:,.1f} MB, {verb}; it reaches back to version "
            f"{trimmed.oldest:,}{kept}")  # fmt: skip
        if trimmed.data_files:
            size = f"{trimmed.data_bytes / 1e6:,.1f} MB"
            say(f"replaced before that version: {trimmed.data_files:,} files, {size}, {verb}")
    say(f"{len(found.files):,} files, {found.bytes / 1e6:,.1f} MB, {verb}; versions before {found.oldest} end")
    if found.kept:
        say(f"kept: {found.kept:,} young files in no version, whose writers may still come to commit them")
    if (found.files or (trimmed and trimmed.files)) and not yes:
        say("next: the same with --yes")
