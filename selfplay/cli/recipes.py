"""`selfplay recipes`: what can be run by name, and what every setting means."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from selfplay.cli.console import Console


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, a .toml file, an environment or an OpenSpiel string.")]
    = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every setting with its default and meaning.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recipes that ship; with NAME, every setting it resolves to.

    Examples:  selfplay recipes  ·  selfplay recipes connect_four --set simulations=64  ·
    selfplay recipes "openspiel:hex(board_size=5)"  ·  selfplay recipes --keys
    """
    from trainers import recipe
    from trainers.kinds import kind_of, kinds
    from trainers.run.settings import keys as keys_of

    console = Console(highlight=False)
    if name is not None:
        resolved = recipe.load_recipe(name, settings or ())
        if as_json:
            typer.echo(resolved.to_json(), nl=False)
            return
        data = resolved.model_dump(mode="json")
        rows = [(key, _at(data, key), meaning) for key, meaning, _ in keys_of(type(resolved))]
        console.print(_table(rows, "value"))
    elif keys:
        every = {
            "game" if kind.name == "self-play" else kind.name: [
                (key, default, meaning) for key, meaning, default in keys_of(kind.config)
            ]
            for kind in kinds()
        }
        if as_json:
            listed = [
                {"kind": kind, "key": k, "default": d, "meaning": m} for kind, rows in every.items() for k, d, m in rows
            ]
            typer.echo(json.dumps(listed, indent=2))
            return
        for kind, rows in every.items():
            console.print(f"[bold]Settings of {kind} runs[/]")
            console.print(_table(rows, "default"))
    else:
        found = {name: recipe.load_recipe(name) for name in recipe.shipped()}
        if as_json:
            typer.echo(json.dumps({name: item.model_dump(mode="json") for name, item in found.items()}))
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("recipe", "minutes", "net", "learns by", ""):
            table.add_column(column, justify="right" if column == "minutes" else "left")
        for key, item in found.items():
            net, how = kind_of(item).in_brief(item)
            table.add_row(f"[bold]{key}[/]", f"{item.run.minutes:g}", net, how, item.summary)
        console.print(table)
        console.print('Any searchable OpenSpiel game runs by its string: selfplay run "openspiel:hex(board_size=5)"')


def _at(data: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        data = data[part]
    return data


def _table(rows: list[tuple[str, Any, str]], value: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", style="bold", no_wrap=True)
    table.add_column(value, style="cyan", overflow="fold")
    table.add_column("meaning")
    for key, item, meaning in rows:
        # JSON's null reads "none", as `--set KEY=none` does.
        shown = "none" if item is None else item if isinstance(item, str) else json.dumps(item)
        table.add_row(key, shown, meaning.replace("[", r"\["))
    return table
