"""`selfplay repair`: make a corpus, or a run with its corpus, whole again after a power cut or a bad disk."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated

import typer

from selfplay.cli.corpus.common import ElsewhereOption, agreed_elsewhere, to_read
from selfplay.cli.untrusted import say
from selfplay.commands import command
from selfplay.errors import UserError


def repair(
    where: Annotated[str, typer.Argument(help="The folder of a run or of a corpus: a path or s3://…")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show what would be done.")] = False,
    elsewhere: ElsewhereOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find what is damaged, set it aside, and restore what can be restored. Nothing is deleted.

    Damaged files go to a folder `_damaged` beside the tables, those of the run to its folder `damaged`. Blocks of
    episodes that the log has lost are committed again; a damaged block is taken out, so that the rest can be used. Says
    which checkpoint and weights the run will go on from. Stop the run before.

    Examples:  selfplay repair runs/connect_four  ·  selfplay repair runs/connect_four --yes
    """
    from selfplay.store import acquire
    from selfplay.store.table.places import corpus_of
    from selfplay.store.table.repair import carry_out, plan
    from selfplay.store.table.snapshot import inside
    from trainers import repair as of_run

    place = agreed_elsewhere(where, elsewhere) or where if yes else to_read(where)
    corpus, run = corpus_of(place), of_run.is_run(where)
    if corpus is None and not run:
        raise UserError(f"there is neither a run nor a corpus at {where}; give the folder that holds it")
    if yes and corpus is not None:
        inside(place, corpus)
    with acquire(where, "selfplay repair") if yes and run else contextlib.nullcontext():
        found = [plan(corpus)] if corpus is not None else []
        found += [of_run.plan(where, corpus)] if run else []
        steps = [step for one in found for step in one.steps]
        untouched = [sentence for one in found for sentence in one.untouched]
        if yes:
            carry_out(found)
    if as_json:
        told = [{"action": s.action, "subject": s.subject, "reason": s.reason, "result": s.result} for s in steps]
        typer.echo(json.dumps({"corpus": corpus, "steps": told, "untouched": untouched, "done": yes}))
        return
    for step in steps:
        say(f"{step.action}: {step.subject}: {step.reason}; {step.result}")
    for sentence in untouched:
        say(sentence)
    if not steps:
        say(f"nothing to repair in {where}")
    elif yes:
        say(f"done; `{command('corpus', 'verify', where)}` checks every episode")
    else:
        say(f"nothing was changed; do it with `{command('repair', where, '--yes')}`")
