"""What the verbs of `selfplay corpus` share."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay.cli.untrusted import say
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.store import Corpus

CorpusArgument = Annotated[str, typer.Argument(help="The corpus or the folder of a run: a path or s3://…")]
VersionOption = Annotated[int | None, typer.Option("--version", help="Version of the table; default the newest.")]
AsOfOption = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="As the table was at this time, UTC."),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option("--env", help="A one-file environment to load before; its code runs. May be repeated."),
]
ElsewhereOption = Annotated[
    bool, typer.Option("--elsewhere", help="Change the corpus that a run's folder leads to, without asking.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Who must have signed it: ed25519:… or a file with that or with a PEM."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_envs(files: list[str] | None) -> None:
    """Makes one-file environments known, so that their episodes can be replayed."""
    from selfplay.environments import registry

    for file in files or ():
        registry.find_any(file)


def open_corpus(uri: str, version: int | None, as_of: datetime | None = None) -> Corpus:
    """The corpus as of a version or a time (UTC). Imported only now: `--help` must be fast.

    Where a run's folder leads elsewhere that is said, and where the run is not this user's, it is asked before.
    """
    from selfplay import store

    if version is not None and as_of is not None:
        raise UserError("say --version or --as-of, not both")
    return store.open(to_read(uri), version if as_of is None else as_of.replace(tzinfo=UTC))


def to_read(uri: str) -> str:
    """The place of the corpus that is about to be read: `uri`, or where a run's folder leads.

    Raises `UserError` where the folder is a stranger's, and whoever runs the command does not agree.
    """
    from selfplay.store.table.places import is_own

    place = _say_where(uri)
    if place is None or is_own(uri, place):
        return uri if place is None else place
    question = "You did not begin that run on this machine. Read that corpus all the same?"
    if sys.stdin.isatty() and typer.confirm(question, err=True):
        return place
    raise UserError(f"the run in {uri} was not begun by this user on this machine; name the corpus itself, {place!r}")


def to_change(uri: str, elsewhere: bool) -> str:
    """The place of the corpus that a verb is about to change, after a question where a folder leads somewhere else.

    Raises `UserError` where the answer is no, and where nobody can be asked and `elsewhere` is not set.
    """
    from selfplay import store
    from selfplay.store.table.snapshot import itself

    place = agreed_elsewhere(uri, elsewhere)
    return itself(uri) if place is None else itself(store.open(place).uri)


def agreed_elsewhere(uri: str, elsewhere: bool) -> str | None:
    """Where else a run's folder leads to, if whoever runs the command agrees to change that; None: nowhere else.

    Raises `UserError` as `to_change` does.
    """
    place = _say_where(uri)
    if place is None or elsewhere or (sys.stdin.isatty() and typer.confirm("Change that corpus?", err=True)):
        return place
    raise UserError(f"nothing was changed; name the corpus itself, {place!r}, or say --elsewhere")


def _say_where(uri: str) -> str | None:
    """Says where the corpus is that a run's folder leads to; None where it leads nowhere else, or holds one itself."""
    from selfplay.store.table.places import held, pointed

    place = pointed(uri)
    if place is None or held(uri) not in (None, place):
        return None
    say(f"the corpus of {uri} is at {place!r}", err=True)
    return place
