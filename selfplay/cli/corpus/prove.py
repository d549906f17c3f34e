"""`selfplay corpus prove`: that one episode is in a release, without the rest of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay.cli.corpus.common import JsonOption, KeyOption, open_corpus
from selfplay.cli.untrusted import cell, say
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.store.release import Released
    from selfplay.store.table.snapshot import Snapshot


def prove(
    episode: Annotated[str, typer.Argument(help="An episode id.")] = "",
    corpus: Annotated[str, typer.Argument(help="The corpus or the folder of a run: a path or s3://…")] = "",
    release: Annotated[str, typer.Option("--release", help="Default: the newest that holds it.")] = "",
    digest_only: Annotated[bool, typer.Option(help="Leave out the row: prove its content digest alone.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the proof to this file.")] = None,
    check: Annotated[str, typer.Option("--check", metavar="FILE", help="Check a proof instead.")] = "",
    key: KeyOption = None,
    root: Annotated[str | None, typer.Option(help="--check: the Merkle root that it must lead to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a proof that an episode is in a release, or check one: that takes neither the corpus nor its rules.

    A proof holds the episode's row, its way up the Merkle tree over all episodes of the release, and the signature
    under the root. `--check` ends with exit code 1 where anything of it is false. Whether the episode itself is true
    is for `selfplay corpus verify`.

    Examples:  selfplay corpus prove run/actor-0/1000/17 runs/connect_four --out proof.json  ·
    selfplay corpus prove --check proof.json --key ed25519:…
    """
    if check:
        if episode or corpus or release or out is not None:
            raise UserError("`--check FILE` takes --key and --root, and no episode")
        _check(check, key, root, as_json)
        return
    if not episode or not corpus:
        raise UserError("say the id of the EPISODE and the CORPUS, or --check FILE")
    if root is not None or key is not None:
        raise UserError("--key and --root are what a proof is checked against; say --check FILE")
    from selfplay.store.release.proof import prove as make

    opened, one = _release_of(corpus, release, episode)
    proof_json = json.dumps(make(opened, one, episode, not digest_only), indent=1) + "\n"
    if out is None:
        typer.echo(proof_json, nl=False)
        return
    try:
        out.write_text(proof_json)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    say(f"{out} proves that {episode} is in release {one.name}, with the Merkle root {one.merkle_root}")
    known = () if one.key is None else ("--key", one.key)
    say(f"next: `{command('corpus', 'prove', '--check', str(out), *known)}` checks it anywhere")


def _release_of(corpus: str, release: str, episode: str) -> tuple[Snapshot, Released]:
    """The corpus as released under that name; without a name, the newest release that has a root and the episode."""
    import pyarrow.compute as pc

    from selfplay.store.release import released
    from selfplay.store.release.check import released_version

    opened = open_corpus(corpus, None)
    if release:
        return released_version(opened, release)
    for one in reversed(released(opened)):
        if one.merkle_root is not None:
            found, one = released_version(opened, one.name)
            if found.count(pc.field("episode_id") == episode):
                return found, one
    raise UserError(f"no release of {opened.uri} that has a Merkle root holds the episode {episode}")


def _check(place: str, key: str | None, root: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from selfplay import signing
    from selfplay.io import storage
    from selfplay.store.release import proof

    wanted = None if key is None else signing.named(key)
    try:
        found = proof.check(proof.loads(storage.read(place, proof.MOST_BYTES)), wanted, root)
    except FileNotFoundError:
        raise UserError(f"there is no proof at {place}") from None
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror or error}") from None
    if as_json:
        typer.echo(json.dumps({**asdict(found), "compared": wanted is not None}))
    elif found.lie is not None:
        say(f"false: {found.lie}")
    else:
        content = "its row" if found.row else "its content digest"
        say(
            f"{cell(found.episode_id)}, with {content} as given, is number {found.index:,} (from 0) of "
            f"{found.episodes:,} episodes of release {cell(found.release)}, Merkle root {cell(found.merkle_root)}"
        )
        if found.key is None:
            known = "it is the one that you gave" if root else "compare the root with one from elsewhere (--root)"
            say(f"nobody signed that root: {known}")
        else:
            say(f"signed by {found.key}{'' if wanted else ' (not compared with a key that you gave: --key)'}")
    if found.lie is not None:
        raise typer.Exit(1)
