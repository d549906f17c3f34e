"""`selfplay corpus key`: the public key with which this user signs releases."""

from __future__ import annotations

from typing import Annotated

import typer

from selfplay.cli.untrusted import say, tame


def key(
    make: Annotated[bool, typer.Option(help="Make one now, if there is none.")] = False,
    pem: Annotated[bool, typer.Option(help="Print it in PEM, for other tools.")] = False,
) -> None:
    """Print the public key with which you sign releases: give it to those who are to know your releases by it.

    The private key is made by the first release, once, and lies in your own state directory with mode 0600. Keep a copy
    of it: releases that are signed with another key look like somebody else's.

    Example:  selfplay corpus key
    """
    from selfplay import signing
    from selfplay.errors import UserError

    own = signing.make() if make else signing.own()
    if own is None:
        raise UserError(f"there is no signing key at {signing.place()} yet; --make makes one")
    if pem:
        typer.echo(signing.pem(own.name), nl=False)
        return
    typer.echo(tame(own.name))
    say(f"the private key is {signing.place()}", err=True)
