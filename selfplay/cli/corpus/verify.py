"""`selfplay corpus verify`: is every episode true?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay import machine
from selfplay.cli.console import Console, plain_markup
from selfplay.cli.corpus.common import (
    AsOfOption,
    CorpusArgument,
    EnvOption,
    JsonOption,
    VersionOption,
    load_envs,
    open_corpus,
)
from selfplay.commands import command

if TYPE_CHECKING:
    from selfplay.store import Corpus

#: Episodes from which on several processes are worth their start.
_WORTH_PROCESSES = 2000


def verify(
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    sample: Annotated[int | None, typer.Option(help="Only so many episodes, drawn evenly.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    env: EnvOption = None,
    processes: Annotated[int, typer.Option(help="Processes; 0: one a core.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check every file and every row, replay every game to its digest and its returns, judge every dialogue again.

    Ends with exit code 1 if anything is false, or a file of the log is damaged. Blocks that were written and are not
    part of the corpus are counted: their writer may be about to commit them. What cannot be checked here is said, with
    what to install.

    Example:  selfplay corpus verify runs/connect_four
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay.store.verify import FALSE, NOT_CHECKABLE, TRUE, Check, outside, verify_corpus

    load_envs(env)
    opened = open_corpus(corpus, version, as_of)
    counts = {TRUE: 0, FALSE: 0, NOT_CHECKABLE: 0}
    lies: list[Check] = []
    missing: dict[str, int] = {}
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=opened.count() if sample is None else min(sample, opened.count()))
        for check in verify_corpus(opened, sample, seed, processes or _processes(opened)):
            counts[check.state] += 1
            if check.state == FALSE:
                lies.append(check)
            elif check.state == NOT_CHECKABLE:
                missing[check.reason] = missing.get(check.reason, 0) + 1
            progress.advance(task)
    newest = sample is None and version is None and as_of is None
    lost, waiting = outside(opened) if newest else ([], [])
    counts[FALSE] += len(lost)
    lies += lost
    if as_json:
        false = [{"subject": check.subject, "reason": check.reason} for check in lies]
        told = {"version": opened.version, **counts, "falsehoods": false, "missing": missing, "uncommitted": waiting}
        typer.echo(json.dumps(told))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for check in lies:
            console.print(f"[red]false[/] {plain_markup(check.subject)}: {plain_markup(check.reason, 2000)}")
        for reason, how_many in missing.items():
            console.print(f"[yellow]not checkable[/] ({how_many:,} episodes): {plain_markup(reason, 2000)}")
        if waiting:
            console.print(
                f"{len(waiting):,} blocks were written and are not part of the corpus, such as "
                f"{plain_markup(waiting[0])}; "
                f"if no run is going to commit them, `{plain_markup(command('repair', opened.uri))}` can"
            )
        console.print(
            f"[bold]{counts[TRUE]:,}[/] true, [bold]{counts[FALSE]:,}[/] false, "
            f"[bold]{counts[NOT_CHECKABLE]:,}[/] not checkable (version {opened.version})"
        )
    if lies:
        raise typer.Exit(1)


def _processes(corpus: Corpus) -> int:
    """One a core, where there is work for them: a process needs a second to begin."""
    return machine.cores() if corpus.count() > _WORTH_PROCESSES else 1
