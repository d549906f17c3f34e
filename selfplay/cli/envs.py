"""`selfplay envs`: the environments that are installed."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from selfplay.cli.console import Console


def envs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the environments that are installed, and where each comes from.

    A new one needs no installation: selfplay check-env ./my_game.py
    """
    from selfplay.contract import GameSpec
    from selfplay.environments import registry

    specs = registry.all_specs()
    sources = [registry.source_of(spec) for spec in specs]
    families = registry.families()
    if as_json:
        rows = [
            {"id": spec.id, "kind": "game" if isinstance(spec, GameSpec) else "task",
             "game": spec.game if isinstance(spec, GameSpec) else None, "summary": spec.summary,
             "package": source.package, "version": source.version}
            for spec, source in zip(specs, sources, strict=True)
        ] + [
            {"id": f"{family.name}/*", "kind": "tasks", "game": None, "summary": family.summary,
             "package": source.package, "version": source.version,
             "members": [family.id_of(member) for member in family.members]}
            for family, source in families
        ]  # fmt: skip
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("environment", "OpenSpiel game", "", "from"):
        table.add_column(column)
    for spec, source in zip(specs, sources, strict=True):
        origin = f"{source.package} {source.version}".strip() or source.name
        rules = spec.game if isinstance(spec, GameSpec) else "(task)"
        table.add_row(f"[bold]{escape(spec.id)}[/]", escape(rules), escape(spec.summary), escape(origin))
    for family, source in families:
        origin = f"{source.package} {source.version}".strip() or source.name
        count = f"({len(family.members)} tasks)"
        table.add_row(f"[bold]{escape(family.name)}/…[/]", count, escape(family.summary), escape(origin))
    Console(highlight=False).print(table)
