"""`selfplay corpus verify`: is every episode true?"""

from __future__ import annotations

import json

import typer

from selfplay.cli.corpus.common import AsOfOption, CorpusArgument, JsonOption, VersionOption, open_corpus


def verify(
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file and every row, and replay every game to its digest and its returns.

    Ends with exit code 1 if anything is false. What cannot be checked here is said, with what to install.

    Example:  selfplay corpus verify runs/connect_four
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay.store.verify import FALSE, NOT_CHECKABLE, TRUE, Check, verify_corpus

    opened = open_corpus(corpus, version, as_of)
    counts = {TRUE: 0, FALSE: 0, NOT_CHECKABLE: 0}
    lies: list[Check] = []
    missing: dict[str, int] = {}
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=opened.count())
        for check in verify_corpus(opened):
            counts[check.state] += 1
            if check.state == FALSE:
                lies.append(check)
            elif check.state == NOT_CHECKABLE:
                missing[check.reason] = missing.get(check.reason, 0) + 1
            progress.advance(task)
    if as_json:
        false = [{"subject": check.subject, "reason": check.reason} for check in lies]
        typer.echo(json.dumps({"version": opened.version, **counts, "falsehoods": false, "missing": missing}))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for check in lies:
            console.print(f"[red]false[/] {check.subject}: {check.reason}")
        for reason, how_many in missing.items():
            console.print(f"[yellow]not checkable[/] ({how_many:,} episodes): {reason}")
        console.print(
            f"[bold]{counts[TRUE]:,}[/] true, [bold]{counts[FALSE]:,}[/] false, "
            f"[bold]{counts[NOT_CHECKABLE]:,}[/] not checkable (version {opened.version})"
        )
    if lies:
        raise typer.Exit(1)
