"""`selfplay tune`: settings of a recipe against each other; the trials themselves are `trainers.tuning`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from selfplay.cli.console import Console, plain_markup
from selfplay.cli.run import configuration, file_of, need_packages, run_log
from selfplay.cli.terminal import taken


def tune(
    recipe: Annotated[str, typer.Argument(help="A recipe, a .toml file, an environment or an OpenSpiel string.")],
    space: Annotated[str, typer.Option(help="TOML file: setting = list of values, or {min, max, log}.")],
    out: Annotated[str | None, typer.Option(help="Folder of the trials' run folders. [runs/tune-RECIPE]")] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    parallel: Annotated[int, typer.Option(min=1, help="At once; they share the cores.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For every trial; may be repeated.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that a recipe file names.")] = False,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Join this Ray cluster instead of starting Ray here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Try settings of a recipe against each other with Ray Tune; every trial is a run, archived like any other.

    Example:  selfplay tune tic_tac_toe --space space.toml --trials 6 --set run.minutes=1
    """
    need_packages("ray", "torch")
    from selfplay.cli.farewell import going_on
    from trainers import tuning
    from trainers.recipe import load_recipe, slug

    configuration(recipe, None, list(settings or ()), trust)  # asks before a recipe's code is run
    wanted = tuning.read_space(space, recipe)
    place = out or f"runs/tune-{slug(recipe)}"
    with run_log(place, "tune") as log, taken(log) as terminal:
        ended = tuning.tune(recipe, wanted, list(settings or ()), place, trials, parallel, address)
        if as_json:
            print(json.dumps({"trials": [asdict(trial) for trial in ended]}), file=terminal.out, flush=True)
            return
        table = Table(*("score", *wanted, "run"), box=box.SIMPLE_HEAD)
        for trial in ended:
            score = trial.error or ("none" if trial.score is None else f"{trial.score:.1%}")
            table.add_row(score, *(f"{trial.settings.get(key)}" for key in wanted), trial.out)
        console = Console(file=terminal.out, highlight=False)
        console.print(table)
        best = next((trial for trial in ended if not trial.error), None)
        if best is not None:
            again = going_on(best.out, file_of(load_recipe(recipe)))
            console.print(f"next: {plain_markup(again)}   goes on with the best", soft_wrap=True)
