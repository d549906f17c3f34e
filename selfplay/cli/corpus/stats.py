"""`selfplay corpus stats`: how much there is, of what, by whom, and how it grew."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from selfplay.cli.console import Console
from selfplay.cli.corpus.common import AsOfOption, CorpusArgument, JsonOption, VersionOption, open_corpus
from selfplay.cli.screen import SPARKS
from selfplay.cli.untrusted import cell, say
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    import duckdb

    from selfplay.store import Corpus

_BY = ("kind", "env_id", "status", "origin", "run_id")
#: Rows of one group that a terminal is shown.
_SHOWN = 12
_PLOT_COLUMNS = 60


def stats(
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count episodes by kind, environment, status, origin, run and policy; say what room they take and how they grew.

    Example:  selfplay corpus stats runs/connect_four
    """
    from selfplay.store.corpus.query import told

    opened = open_corpus(corpus, version, as_of)
    try:
        with told():
            numbers = count(opened)
    except UserError as error:  # the questions are right, so it is the corpus
        raise UserError(f"{corpus} cannot be counted, see `{command('repair', corpus)}`: {error}") from error
    if as_json:
        typer.echo(json.dumps(numbers))
        return
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        f"[bold]{numbers['episodes']:,}[/] episodes, {numbers['steps']:,} steps, {numbers['bytes'] / 1e6:,.1f} MB in "
        f"{numbers['files']:,} files ({numbers['bytes_per_step']:.1f} bytes a step), version {numbers['version']}"
    )
    table = Table("", "", "episodes", "steps", "trainable", "MB", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, groups in numbers["by"].items():
        for i, group in enumerate(groups[:_SHOWN]):
            figures = [f"{group[key]:,}" if key in group else "" for key in ("episodes", "steps", "trainable")]
            size = f"{group['bytes'] / 1e6:,.1f}" if "bytes" in group else ""
            versions = f" v{group['versions'][0]}–{group['versions'][1]}" if "versions" in group else ""
            table.add_row(name if i == 0 else "", Text(f"{cell(group['value'])}{versions}"), *figures, size)
        if len(groups) > _SHOWN:
            table.add_row("", f"[dim]and {len(groups) - _SHOWN:,} more: --json[/]")
    console.print(table)
    if numbers["growth"]:
        console.print(plot(numbers["growth"]))
    if numbers["files"] > 100 and numbers["bytes"] / numbers["files"] < 4e6:
        say(f"next: `{command('corpus', 'compact', corpus)}` makes few files of these many small ones")
    else:
        say(f"next: `{command('corpus', 'verify', corpus)}` checks that all of it is true")


def count(corpus: Corpus) -> dict[str, Any]:
    """The numbers of `stats`: totals, `by` value of each column and policy, and `growth` by minute of beginning."""
    connection = corpus.to_duckdb()
    names = ", ".join(_BY)
    rows = connection.sql(
        f"""SELECT {names}, epoch(started_at)::BIGINT // 60 * 60, count(*), sum(n_steps)::BIGINT,
                   count(*) FILTER (trainable)
            FROM episodes GROUP BY ALL"""
    ).fetchall()
    files = corpus.files()
    room: Counter[str] = Counter()
    for file in files:
        room[file["partition.run_id"]] += file["size_bytes"]
    by = {name: _folded([(row[i], *row[-3:]) for row in rows]) for i, name in enumerate(_BY)}
    for group in by["run_id"]:
        group["bytes"] = room[group["value"]]
    growth: dict[int, list[int]] = {}
    for row in rows:
        at = growth.setdefault(row[len(_BY)], [0, 0])
        at[0] += row[-3]
        at[1] += row[-2]
    size, steps = sum(room.values()), sum(row[-2] for row in rows)
    return {
        "version": corpus.version,
        "episodes": sum(row[-3] for row in rows),
        "steps": steps,
        "bytes": size,
        "bytes_per_step": size / steps if steps else 0.0,
        "files": len(files),
        "by": {**by, "policy": _policies(connection)},
        "growth": [
            {"minute": datetime.fromtimestamp(at, UTC).isoformat(), "episodes": episodes, "steps": steps_}
            for at, (episodes, steps_) in sorted(growth.items())
        ],
    }


def _folded(rows: list[tuple[Any, int, int, int]]) -> list[dict[str, Any]]:
    sums: dict[Any, list[int]] = {}
    for value, *figures in rows:
        sums[value] = [a + b for a, b in zip(sums.get(value, (0, 0, 0)), figures, strict=True)]
    keys = ("episodes", "steps", "trainable")
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], str(item[0])))
    return [{"value": value, **dict(zip(keys, figures, strict=True))} for value, figures in ordered]


def _policies(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Episodes in which each policy played a part, and its first and last version there."""
    rows = connection.sql(
        """SELECT list_transform(policy_spans, lambda span: {'id': span.policy_id, 'version': span.version}) AS pairs,
                  count(*), count(*) FILTER (trainable)
           FROM episodes GROUP BY pairs"""
    ).fetchall()
    versions: dict[str, list[int]] = {}
    played: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    for pairs, episodes, some in rows:
        for pair in pairs or ():
            versions.setdefault(pair["id"], []).append(pair["version"])
        for policy in {pair["id"] for pair in pairs or ()}:
            played[policy] += episodes
            trainable[policy] += some
    return [
        {
            "value": policy,
            "episodes": count,
            "trainable": trainable[policy],
            "versions": (min(versions[policy]), max(versions[policy])),
        }
        for policy, count in sorted(played.items(), key=lambda item: (-item[1], item[0]))
    ]


def plot(growth: list[dict[str, Any]]) -> str:
    """A line of bars: episodes begun in equal parts of the time that the corpus spans."""
    times = [datetime.fromisoformat(row["minute"]) for row in growth]
    minutes = [int((at - times[0]).total_seconds()) // 60 for at in times]
    width = -(-(minutes[-1] + 1) // _PLOT_COLUMNS)
    bins = [0] * (minutes[-1] // width + 1)
    for minute, row in zip(minutes, growth, strict=True):
        bins[minute // width] += row["episodes"]
    most = max(bins)
    bars = "".join(" " if not n else SPARKS[min(7, 8 * n // (most + 1))] for n in bins)
    span = f"{width} minute{'s' * (width > 1)}" if width < 120 else f"{width / 60:.1f} hours"
    first, last = (at.strftime("%Y-%m-%d %H:%M") for at in (times[0], times[-1]))
    return f"growth  {bars}  {first} to {last} UTC; a bar is {span}, the highest {most:,} episodes"
