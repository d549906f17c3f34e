"""`selfplay corpus release`: pin a version that is true, with all that a stranger needs to check it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay.cli.console import Console
from selfplay.cli.corpus.common import ElsewhereOption, JsonOption, VersionOption, open_corpus, to_change
from selfplay.cli.untrusted import cell, say
from selfplay.commands import command
from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.io import storage

if TYPE_CHECKING:
    from selfplay.signing import Key
    from selfplay.store import Corpus
    from selfplay.store.release import Released
    from selfplay.store.release.carried import Source


#: Files of a version from which on it is worth while to compact before a release.
_MANY_FILES = 64


def release(
    name: Annotated[str, typer.Argument(help="Of the release; a name is given once.")] = "",
    corpus: Annotated[str, typer.Argument(help="The corpus or the folder of a run: a path or s3://…")] = "",
    version: VersionOption = None,
    note: Annotated[str, typer.Option(help="What it is for, a sentence or two.")] = "",
    sample: Annotated[int | None, typer.Option(help="Check only so many episodes; the release says so.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    processes: Annotated[int, typer.Option(help="Processes; 0: one a core.", min=0)] = 0,
    redact_to: Annotated[
        str | None,
        typer.Option(
            metavar="DEST",
            help="Release a copy, in the new folder DEST, without host and user names, absolute paths, addresses and "
            "configuration.",
        ),
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Let it carry the weights that its episodes name, if they are kept.")
    ] = False,
    weights_from: Annotated[
        list[str] | None,
        typer.Option(help="With weights of this folder: a run's, or of *.safetensors. May be repeated."),
    ] = None,
    sign: Annotated[bool, typer.Option(help="Sign it with your key; the first release makes one.")] = True,
    elsewhere: ElsewhereOption = False,
    list_them: Annotated[bool, typer.Option("--list", help="List the releases of a corpus.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Release a version: verify it, and write its card, schema, certificate and one-file verifier to released/NAME.

    Nothing is released where anything is false. `vacuum` keeps released versions for ever. With --redact-to the corpus
    itself is left as it is, and DEST is what may be published. `corpus verify --release NAME` checks a release.

    --with-weights adds the weights of every version that its episodes name, found by their sha256 in the run's folder
    around the corpus and in those named by --weights-from; which were not kept is said. With them anybody can compute
    again, by verify_weights.py and torch alone, what nets said and searches found.

    Examples:  selfplay corpus release first runs/connect_four  ·  selfplay corpus release --list runs/connect_four  ·
    selfplay corpus release first runs/connect_four --redact-to published/first
    """
    if list_them:
        if name and corpus:
            raise UserError("`--list` takes the corpus alone")
        _list(open_corpus(corpus or name, None), as_json)
        return
    if not name or not corpus:
        raise UserError("say the NAME of the release and the CORPUS")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay.cli.corpus.verify import _processes, framing
    from selfplay.store.release import refuse_full, refuse_taken, release_redacted
    from selfplay.store.release import release as make

    if redact_to is None:
        opened = open_corpus(to_change(corpus, elsewhere), version)
        refuse_taken(opened, name)
    else:
        opened = open_corpus(corpus, version)
        refuse_full(redact_to)
    if len(opened.files()) > _MANY_FILES and not as_json:
        say(f"of {len(opened.files()):,} files; `{command('corpus', 'compact', corpus)}` would have made few of them")
    signer = _signer() if sign else None
    weights = _weights(corpus, opened, weights_from or []) if with_weights or weights_from else None
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=opened.count() if sample is None else min(sample, opened.count()))
        workers = processes or _processes(opened)
        how = (note, sample, seed, workers, lambda: progress.advance(task), signer, framing(), weights)
        done = make(opened, name, *how) if redact_to is None else release_redacted(opened, name, redact_to, *how)
    if as_json:
        typer.echo(_json(done))
        return
    checked = "all checked" if done.sample is None else f"{done.sample:,} of them checked"
    say(
        f"{name} is version {done.table_version}: {done.episodes:,} episodes, {checked}, {done.true:,} true, 0 false, "
        f"{done.not_checkable:,} not checkable"
    )
    for reason, count in done.reasons.items():
        say(f"not checkable ({count:,} episodes): {reason}")
    say(f"its files are in {done.place}; content digest {done.content_digest}")
    say(f"certificate.json has sha256 {done.certificate_sha256}")
    given = "not signed" if done.key is None else f"signed by {done.key}"
    say(f"Merkle root {done.merkle_root}, {given}: give both to those who are to check it")
    if weights is not None:
        told = json.loads(storage.read(storage.join(done.place, "certificate.json")))
        say(f"{told['weights']['said']}")
    if redact_to is None:
        say(
            "its tables hold host names, paths and the configuration of its runs; --redact-to DEST releases a copy "
            "without them"
        )
    place = opened.uri if redact_to is None else done.place.removesuffix(f"/released/{name}")
    say(
        f"next: `python verify_corpus.py {place}` in that folder checks it without this package; "
        f'`store.open("{place}", version={done.table_version})` reads it'
    )


def _weights(asked: str, corpus: Corpus, folders: list[str]) -> Source:
    """Gives the weights in some folders, and in the run's folder around the corpus. asked: as the user named it."""
    if find_spec("torch") is None:
        raise UserError(f"--with-weights needs torch: {how_to_install('factory')}")
    from selfplay.weighed.kept import Kept, folders_of, refuse_empty

    return Kept([*map(refuse_empty, folders), *folders_of(asked, corpus.uri)]).file


def _signer() -> Callable[[], Key]:
    """Gives this user's key; where there is none it is made when it is asked for, and that is said, once.

    Raises `UserError` at once for one that cannot be used, and where none could be kept.
    """
    from selfplay import signing

    try:
        known = signing.own()
    except UserError as error:
        raise UserError(f"{error}; --no-sign releases without a signature") from None

    def key() -> Key:
        if known is not None:
            return known
        made = signing.make()
        say(
            f"made a key to sign releases with, {made.name}; it lies in {signing.place()}: keep a copy. --no-sign "
            "releases without a signature",
            err=True,
        )
        return made

    return key


def _json(one: Released) -> str:
    return json.dumps({**asdict(one), "created_at": one.created_at.isoformat()})


def _list(corpus: Corpus, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from selfplay.store.release import released

    found = released(corpus)
    if as_json:
        for one in found:
            typer.echo(_json(one))
        return
    if not found:
        say("nothing is released yet; `selfplay corpus release NAME CORPUS` releases the newest version")
        return
    head = ("release", "version", "made (UTC)", "episodes", "true", "not checkable", "note")
    table = Table(*head, box=None, pad_edge=False, header_style="dim")
    for one in found:
        figures = (one.episodes, one.true, one.not_checkable)
        made = f"{one.created_at:%Y-%m-%d %H:%M}"
        name, note = Text(cell(one.name)), Text(cell(one.note))
        table.add_row(name, str(one.table_version), made, *(f"{figure:,}" for figure in figures), note)
    Console(highlight=False).print(table)
