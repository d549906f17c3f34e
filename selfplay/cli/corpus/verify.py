"""`selfplay corpus verify`: is every episode true?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay import machine
from selfplay.cli.console import Console, plain_markup
from selfplay.cli.corpus.common import (
    AsOfOption,
    CorpusArgument,
    EnvOption,
    JsonOption,
    KeyOption,
    VersionOption,
    load_envs,
    open_corpus,
)
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.store.release.check import Standing
    from selfplay.store.table.snapshot import Snapshot
    from selfplay.store.verify.prompts import Renders
    from selfplay.store.verify.verify import Check

#: Episodes from which on several processes are worth their start.
_WORTH_PROCESSES = 2000
#: Lines of one kind that are printed.
_MOST_LINES = 1000


def verify(
    corpus: CorpusArgument,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help="This release, with its files, Merkle root and signature.")
    ] = None,
    key: KeyOption = None,
    sample: Annotated[int | None, typer.Option(help="Only so many episodes, drawn evenly.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    env: EnvOption = None,
    processes: Annotated[int, typer.Option(help="Processes; 0: one a core.", min=0)] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also compute again what nets said, and make some searches again.")
    ] = False,
    weights_from: Annotated[
        list[str] | None, typer.Option(help="A folder with weights: a run's, or of *.safetensors. May be repeated.")
    ] = None,
    searches: Annotated[int, typer.Option(help="With --weights: searches that are made again.", min=0)] = 1000,
    strict: Annotated[bool, typer.Option("--strict", help="End with code 3 unless all episodes are true.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every file and every row, replay every game to its digest and its returns, judge every dialogue again.

    Ends with exit code 1 if anything is false, or a file of the log is damaged. Blocks that were written and are not
    part of the corpus are counted: their writer may be about to commit them. What cannot be checked here is said, with
    what to install; with --strict, exit code 3 then, and where --weights had to leave something out. What true covered
    is said in the end, and what it did not.

    --weights computes again, with the weights that an episode names, raw values and priors of its moves, some of its
    searches, and the log-probabilities of its tokens. Weights are found by their sha256 in the run's folder around the
    corpus, in the release of --release and in folders named by --weights-from. With --sample it draws its own episodes,
    as many of each version.

    With --release it is the released version that is checked, and whether the release holds all that its certificate
    says, signed by KEY.

    Examples:  selfplay corpus verify runs/connect_four  ·
    selfplay corpus verify runs/connect_four --weights --sample 1000  ·
    selfplay corpus verify runs/connect_four --release first --key ed25519:…
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay.store.coverage import FALSE, NOT_CHECKABLE, TRUE, WEIGHTS, Tally, as_fields
    from selfplay.store.table.chain import open_ended
    from selfplay.store.verify.verify import outside, verify_corpus

    load_envs(env)
    weighs = weights or bool(weights_from)
    opened: Snapshot = open_corpus(corpus, version, as_of)
    tally = Tally()
    unsure: set[str] = set()
    standing: Standing | None = None
    if release is not None:
        if version is not None or as_of is not None:
            raise UserError("a release is one version: say --release without --version and --as-of")
        opened, wrong, standing = _released(opened, release, key)
        tally.lies += wrong
    elif key is not None:
        raise UserError("it is releases that are signed: say --release NAME with --key")
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=opened.count() if sample is None else min(sample, opened.count()))
        for check in verify_corpus(opened, sample, seed, processes or _processes(opened), framing()):
            tally.add(check)
            if weighs and check.state == NOT_CHECKABLE:
                unsure.add(check.subject)
            progress.advance(task)
    newest = sample is None and version is None and as_of is None and release is None
    lost, waiting = outside(opened) if newest else ([], [])
    unended = open_ended(opened)
    deleted = opened.table("deletions", ["run_id", "episodes", "command", "reason"]).to_pylist()
    tally.lies += lost
    weighing = None
    if weighs:
        from selfplay.cli.corpus.weights import weigh

        weighing = weigh(opened, corpus, weights_from or [], sample, seed, searches, release)
        known = {check.subject for check in tally.lies}
        news = [check for check in weighing.false if check.subject not in known]
        tally.lies += news
        if sample is None:
            tally.true -= len({check.subject for check in news if not check.subject.startswith("run ")} - unsure)
    counts = {TRUE: tally.true, FALSE: len(tally.lies), NOT_CHECKABLE: tally.not_checkable}
    fields = as_fields(tally, () if weighs else (WEIGHTS,))
    if as_json:
        false = [{"subject": check.subject, "reason": check.reason} for check in tally.lies]
        told = {"version": opened.version, **counts, "falsehoods": false, "missing": tally.by_reason}
        more = {"open_ended": unended, "deletions": deleted}
        more |= {} if weighing is None else {"weights": weighing.numbers}
        of = {} if standing is None else {"release": {**asdict(standing), "uncovered": standing.uncovered}}
        typer.echo(json.dumps({**told, **fields, "uncommitted": waiting, **more, **of}))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for check in tally.lies[:_MOST_LINES]:
            console.print(f"[red]false[/] {plain_markup(check.subject)}: {plain_markup(check.reason, 2000)}")
        if (more_lies := len(tally.lies) - _MOST_LINES) > 0:
            console.print(f"and {more_lies:,} more are false; --json names them all")
        for (why, reason), how_many in sorted(tally.reasons.items()):
            said = f"{how_many:,} episodes, {why}"
            console.print(f"[yellow]not checkable[/] ({said}): {plain_markup(reason, 2000)}")
        for row in deleted[:_MOST_LINES]:
            who, why = (plain_markup(str(row[name]), 2000) for name in ("command", "reason"))
            many = f"{row['episodes'] or 0:,} episodes of run {plain_markup(str(row['run_id']))}"
            console.print(f"{many} are entered as taken out by {who}: {why}")
        for run_id in unended:
            console.print(
                f"run {plain_markup(run_id)} has not ended, or was killed, and no closing says what it had archived: "
                "episodes that are missing at its end would not show"
            )
        if waiting:
            console.print(
                f"{len(waiting):,} blocks were written and are not part of the corpus, such as "
                f"{plain_markup(waiting[0])}; "
                f"if no run is going to commit them, `{plain_markup(command('repair', opened.uri))}` can"
            )
        if weighing is not None:
            for reason, how_many in weighing.left_out.items():
                console.print(f"[yellow]not weighed[/] ({how_many:,} decisions): {plain_markup(reason, 2000)}")
            console.print(weighing.sentence)
        console.print(
            f"[bold]{counts[TRUE]:,}[/] true, [bold]{counts[FALSE]:,}[/] false, "
            f"[bold]{counts[NOT_CHECKABLE]:,}[/] not checkable (version {opened.version})"
        )
        console.print(fields["meaning"])
        if standing is not None:
            console.print(f"release {plain_markup(standing.release)}: {plain_markup(standing.said)}")
    if tally.lies:
        raise typer.Exit(1)
    if strict and (tally.not_checkable or (weighing is not None and weighing.left_out)):
        raise typer.Exit(3)


def _released(corpus: Snapshot, name: str, key: str | None) -> tuple[Snapshot, list[Check], Standing]:
    """The corpus at the version of a release, what is false of the release, and what it stands on."""
    from selfplay import signing
    from selfplay.store.release.check import check_release, released_version

    wanted = None if key is None else signing.named(key)
    opened, one = released_version(corpus, name)
    return opened, *check_release(opened, one, wanted)


def framing() -> Renders | None:
    """Compares prompts with what their tokenizers make of messages; None where the libraries for that are not here."""
    try:
        from selfplay.nets.language.framing import Framing
    except ImportError:
        return None
    return Framing()


def _processes(corpus: Snapshot) -> int:
    """One a core, where there is work for them: a process needs a second to begin."""
    return machine.cores() if corpus.count() > _WORTH_PROCESSES else 1
