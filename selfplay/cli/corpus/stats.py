"""`selfplay corpus stats`: how much there is, by what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from selfplay.cli.corpus.common import AsOfOption, CorpusArgument, JsonOption, VersionOption, open_corpus

if TYPE_CHECKING:
    from selfplay.store import Corpus


def stats(
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count episodes and steps by kind, environment, status, origin and run; and say how much room they take.

    Example:  selfplay corpus stats runs/connect_four
    """
    numbers = count(open_corpus(corpus, version, as_of))
    if as_json:
        typer.echo(json.dumps(numbers))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"[bold]{numbers['episodes']:,}[/] episodes, {numbers['steps']:,} steps, {numbers['bytes'] / 1e6:,.1f} MB in "
        f"{numbers['files']:,} files ({numbers['bytes_per_step']:.1f} bytes a step), version {numbers['version']}"
    )
    table = Table("", "", "episodes", "steps", "trainable", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, groups in numbers["by"].items():
        for i, group in enumerate(groups):
            figures = [f"{group[key]:,}" for key in ("episodes", "steps", "trainable")]
            table.add_row(name if i == 0 else "", str(group["value"]), *figures)
    console.print(table)


def count(corpus: Corpus) -> dict[str, Any]:
    """The numbers of `stats`: totals, and by value of each column in `by`."""
    import pyarrow.compute as pc

    names = ["kind", "env_id", "status", "origin", "run_id"]
    rows = corpus.to_arrow(columns=[*names, "n_steps", "trainable"])
    files = corpus.files()
    size, steps = sum(file["size_bytes"] for file in files), pc.sum(rows.column("n_steps")).as_py() or 0
    by = {}
    for name in names:
        groups = rows.group_by(name).aggregate([("n_steps", "count"), ("n_steps", "sum"), ("trainable", "sum")])
        by[name] = [
            {
                "value": group[name],
                "episodes": group["n_steps_count"],
                "steps": group["n_steps_sum"],
                "trainable": group["trainable_sum"] or 0,
            }
            for group in sorted(groups.to_pylist(), key=lambda group: -group["n_steps_count"])
        ]
    return {
        "version": corpus.version,
        "episodes": rows.num_rows,
        "steps": steps,
        "bytes": size,
        "bytes_per_step": size / steps if steps else 0.0,
        "files": len(files),
        "by": by,
    }
