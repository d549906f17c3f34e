"""`selfplay check-env`: does an environment keep the contract?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from selfplay.cli.console import Console, plain_markup
from selfplay.commands import command
from selfplay.environments.checks.report import Report, TaskReport
from selfplay.environments.checks.watch import MOST_STEPS, STEP_S, examine


def check_env(
    env: Annotated[str, typer.Argument(help="An id, a Python file, or an OpenSpiel string.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[
        float, typer.Option(min=1.0, help=f"Seconds for one step of its code; {MOST_STEPS} times that for all.")
    ] = STEP_S,
) -> None:
    """Compare what ENV's file declares with what it does: in random games, or in a task's problems and verdicts.

    Takes a few seconds. The first difference of each check is printed; the exit code is 1 where there is one. ENV's
    code runs in processes that are watched: where it hangs, or ends its process, the line at which it stood is printed.
    A second process, at another time, in another folder and in another order, must see the same games and problems.

    Examples:  selfplay check-env ./my_game.py  ·  selfplay check-env connect_four  ·
    selfplay check-env "openspiel:hex(board_size=5)"
    """
    report = examine(env, limit)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    elif isinstance(report, TaskReport):
        _print_task(env, report)
    else:
        _print(env, report)
    if not report.ok:
        raise typer.Exit(1)


def _print_findings(console: Console, title: str, about: str, report: Report | TaskReport) -> None:
    from rich.markup import escape
    from rich.text import Text

    console.print(f"[bold]{escape(title)}[/]  {escape(about)}")
    for finding in report.findings:
        passed = "[green]✓[/]" if finding.note is None else "[yellow]![/]"
        console.print(f"  {passed if finding.problem is None else '[red]✗[/]'} {finding.name}")
        if finding.problem is not None:
            console.print(Text(f"    {finding.problem}", "red"))
        if finding.where and finding.where not in (finding.problem or ""):
            console.print(Text(f"    {finding.where}", "dim"))
        if finding.note is not None:
            console.print(Text(f"    {finding.note}", "yellow"))
    if not report.ok:
        failed = sum(finding.problem is not None for finding in report.findings)
        console.print(f"[bold red]{failed} of {len(report.findings)} checks failed[/] ({report.seconds:.1f} s)")


def _print_task(env: str, report: TaskReport) -> None:
    from rich.text import Text

    console = Console(highlight=False)
    _print_findings(console, report.id, report.summary, report)
    if not report.ok:
        return
    question, gold, solution = report.example
    console.print(Text.assemble("\nasked     ", (question, "bold")))
    console.print(Text(f"answer    {gold}"))
    if solution:
        console.print(Text(f"worked    {solution}"))
    levels = ", ".join(f"{one:g}" for one in report.difficulties)
    console.print(f"\ndifficulties: {levels}")
    console.print(f"[bold green]all checks passed[/] on {report.problems} problems ({report.seconds:.1f} s)")
    console.print(f"next:  {plain_markup(command('run', env))}")


def _print(env: str, report: Report) -> None:
    from rich.errors import MarkupError
    from rich.text import Text

    console = Console(highlight=False)
    _print_findings(console, report.id, report.game, report)
    if not report.ok:
        return
    try:
        drawing = Text.from_markup(report.drawing)
    except MarkupError:
        drawing = Text(report.drawing)
    console.print("\nthe end of a random game:\n")
    console.print(drawing)
    shape = "none" if report.input_shape is None else "x".join(map(str, report.input_shape))
    console.print(
        f"\n{report.players} seats, {report.actions} actions, net input {shape}, "
        f"symmetries: {', '.join(report.symmetries) or 'none'}\nruleset {(report.ruleset or '')[:16]}"
    )
    console.print(f"[bold green]all checks passed[/] on {report.games} random games ({report.seconds:.1f} s)")
    if report.unsearchable is not None:
        console.print(Text(f"its episodes can be archived, but the search cannot play it: {report.unsearchable}"))
    else:
        console.print(f"next:  {plain_markup(command('run', env))}")
