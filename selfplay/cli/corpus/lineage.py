"""`selfplay corpus lineage`: from an episode to the weights that played it, and from weights to their episodes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Annotated, Any

import typer

from selfplay.cli.corpus.common import JsonOption, VersionOption, open_corpus
from selfplay.cli.untrusted import cell, say
from selfplay.errors import UserError

#: RUN/SLOT/EPOCH/NUMBER; a run's id has no slash.
_EPISODE = re.compile(r"[^/\s]+/[^/\s]+/\d+/\d+")


def lineage(
    subject: Annotated[str, typer.Argument(help="An episode id; with --weights the corpus.", metavar="[EPISODE]")],
    corpus: Annotated[str | None, typer.Argument(help="The corpus or the folder of a run: a path or s3://…")] = None,
    weights: Annotated[str | None, typer.Option(help="Digest of weights, or its first 8 characters or more.")] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="With --weights: every archived position that its steps sampled.")
    ] = False,
    version: VersionOption = None,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="With --weights: look for them outside the corpus and its run, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Trace an episode to the code, seed and weights that made it; or weights to the episodes that made them.

    Examples:  selfplay corpus lineage RUN/p0000/1000/17 runs/connect_four  ·
    selfplay corpus lineage runs/connect_four --weights 3fa0c1d2 --samples --json
    """
    from selfplay.store.corpus import lineage as found

    if weights is None:
        _check_subject(subject, corpus)
        assert corpus is not None
        _print(asdict(found.of_episode(open_corpus(corpus, version), subject)), as_json)
        return
    if corpus is not None:
        raise UserError(
            f"{subject} was taken as the corpus, since --weights is given, and {corpus} is one argument too many: "
            "`selfplay corpus lineage CORPUS --weights DIGEST`"
        )
    opened = open_corpus(subject, version)
    origin = found.of_weights(opened, weights, subject, elsewhere)
    told: dict[str, Any] = asdict(origin)
    if samples:
        from trainers.alphazero.provenance import samples_of

        told["samples"] = [
            {"episode_id": episode, "step": step, "times": times}
            for (episode, step), times in sorted(samples_of(opened, origin.run_id, origin.version).items())
        ]
    if origin.uri and origin.kept is None and not as_json:
        told["kept"] = "not looked for outside the corpus and its run; --elsewhere does"
    _print(told, as_json)


def _check_subject(subject: str, corpus: str | None) -> None:
    """Episode ids look like RUN/SLOT/EPOCH/NUMBER: says what was understood where the first argument does not."""
    right = "`selfplay corpus lineage EPISODE CORPUS`, where EPISODE is like RUN/p0000/1000/17"
    if corpus is None and not _EPISODE.fullmatch(subject):
        raise UserError(f"{subject} was taken as the episode, and there is no corpus: {right}; or --weights DIGEST")
    if corpus is None:
        raise UserError(f"the corpus that holds episode {subject} is missing: {right}")
    if _EPISODE.fullmatch(corpus) and not _EPISODE.fullmatch(subject):
        raise UserError(f"{subject} was taken as the episode and {corpus} as the corpus; it is the other way: {right}")
    if not _EPISODE.fullmatch(subject):
        raise UserError(
            f"{subject} was taken as the episode, but it is no episode id: {right}. "
            "`selfplay corpus tail` and `selfplay corpus show` list ids; for a run's weights use --weights DIGEST"
        )


def _print(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told))
        return
    width = max(map(len, told))
    for name, value in told.items():
        rows = value if isinstance(value, list | tuple) and value and isinstance(value[0], dict) else None
        if rows is None:
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else "-" if value is None else value
            say(f"{name.replace('_', ' '):<{width}}  {shown}")
            continue
        say(f"{name.replace('_', ' '):<{width}}  {len(rows):,}")
        for row in rows[:20]:
            say(f"{'':<{width}}  " + "  ".join(f"{key} {cell(item)}" for key, item in row.items()))
