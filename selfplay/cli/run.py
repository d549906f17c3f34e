"""`selfplay run`: settings, terminal, signals; the run itself is `trainers.launch.run`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfplay.cli.signals import stopping
from selfplay.cli.terminal import Logged, Terminal, forget_logs, taken
from selfplay.cli.untrusted import say, tame
from selfplay.commands import command
from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.io import run_files, scratch, storage

if TYPE_CHECKING:
    from selfplay.contract import EnvSpec
    from trainers.run.kind import RunStatus, RunSummary
    from trainers.run.ray_session import LastWords
    from trainers.run.settings import Experiment


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe, a .toml file, an environment, a file with one, or an OpenSpiel string."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Run folder, a path or s3://…; one that exists is continued. [runs/RECIPE]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Length; of games counted from the first of them.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Join this Ray cluster instead of starting Ray here.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the code that a recipe file names; with --out alone: use the rules, questions, corpus, model and "
            "address that the run names.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Progress to standard error; the last line is one JSON object.")
    ] = False,
) -> None:
    """Play a game against itself, or reason about a task's problems; archive every episode, learn from the archive.

    Ctrl-C once saves everything and stops; the same command, or --out alone, goes on from there.

    Examples:  selfplay run connect_four  ·  selfplay run tic_tac_toe --minutes 1.5 --set seed=3  ·
    selfplay run "openspiel:hex(board_size=5)"  ·  selfplay run ./my_game.py  ·  selfplay run --out runs/connect_four  ·
    selfplay run parity_cot  ·  selfplay run countdown_grpo  ·  selfplay run ./problems.jsonl --set policy.path=DIR
    """
    overrides = [*(settings or ()), *([] if minutes is None else [f"run.minutes={float(minutes)!r}"])]
    config = configuration(recipe, out, overrides, trust)
    spec = environment(config, None if recipe is not None or trust else out)
    need_packages("ray", "torch", "numba", "safetensors")
    place = out or f"runs/{config.name}"
    with run_log(place, config.name) as log, taken(log) as terminal:
        summary = watch(config, spec, place, address, terminal, as_json)
        if as_json:
            print(json.dumps(summary.to_dict()), file=terminal.out, flush=True)


def configuration(recipe: str | None, out: str | None, overrides: Sequence[str], trust: bool = False) -> Experiment:
    """The settings of the recipe, or of the run in `out` where no recipe is named.

    Raises `UserError` where that run reaches out of its folder and no command of this user has let it, or a recipe file
    names a program that the command itself does not, and whoever gave the command does not agree. trust: he does.
    """
    from trainers.kinds import from_data, read_config
    from trainers.recipe import load_recipe

    named = {override.partition("=")[0].strip() for override in overrides}
    if recipe is not None:
        config = load_recipe(recipe, overrides)
        if recipe.endswith(".toml") and not trust and not named & {"env.id", "task.id"}:
            _refuse_code(named_in(config), recipe)
        return config
    if out is None:
        raise UserError("say what to run: a recipe such as connect_four, or --out with a run to continue")
    uri = storage.join(out, run_files.CONFIG_FILE)
    try:
        begun, _ = read_config(storage.normalise(out))
    except FileNotFoundError:
        reason = f"no {run_files.CONFIG_FILE}"
        raise UserError(f"there is no run in {out} to continue ({reason}); name a recipe to begin one") from None
    config = from_data(begun.model_dump(mode="json"), uri, overrides)
    if not trust:
        if not storage.is_remote(out):
            run_files.refuse_links(out)
        _refuse_reach(config, out, named)
    return config


def _refuse_reach(config: Experiment, out: str, named: set[str]) -> None:
    """See `configuration`. named: settings of this command line."""
    from selfplay import vouched
    from trainers.run.reach import reach

    known = vouched.read(storage.normalise(out))
    new = {key: value for key, value in reach(config, out).items() if key not in named and known.get(key) != value}
    if not new:
        return
    shown = ", ".join(f"{key} = {value!r}" for key, value in new.items())
    sentence = f"the run in {out} reaches out of its folder, and was not begun by this user on this machine: {shown}"
    if not _agreed(sentence, "Let it?"):
        raise UserError(f"{sentence}; if you trust it, say --trust, or name its recipe and settings again")


def _refuse_code(named: str, recipe: str) -> None:
    """Raises `UserError` where a recipe file names a program, and whoever gave the command does not agree to run it."""
    sentence = f"the recipe {recipe} runs the code in {named}"
    if named.endswith(".py") and not _agreed(sentence, "Run it?"):
        raise UserError(f"{sentence}; if you trust it, say --trust")


def _agreed(sentence: str, question: str) -> bool:
    """Whether whoever sits at the terminal agrees; nobody does where there is none."""
    if not sys.stdin.isatty():
        return False
    say(sentence, err=True)
    return typer.confirm(question, err=True)


def environment(config: Experiment, resumed: str | None) -> EnvSpec:
    """The environment that the settings name.

    resumed: the run folder that they were read from, which may be a stranger's: a file that it names is then not used;
    None where the user named them himself. Raises `UserError`.
    """
    from selfplay.environments import archived
    from trainers.kinds import kind_of

    kind = kind_of(config)
    named = kind.environment_of(config)
    if resumed is None:
        return kind.find(named)
    try:
        spec = archived.find_reference(named)
    except UserError as error:
        advice = f"name it (`{command('run', named, '--out', resumed)}`), or say --trust"
        raise UserError(f"the run in {resumed} asks for {named!r}: {error}; if that is yours, {advice}") from None
    if not isinstance(spec, kind.spec):
        raise UserError(f"the run in {resumed} asks for {spec.id}, which is not a {kind.environment}")
    return spec


def named_in(config: Experiment) -> str:
    """The environment, as the settings name it."""
    from trainers.kinds import kind_of

    return kind_of(config).environment_of(config)


def file_of(config: Experiment) -> str:
    """The file of rules or questions that the settings name; "" where they name what is installed."""
    from selfplay.environments import question_file

    named = named_in(config)
    return named if named.endswith(".py") or question_file.is_reference(named) else ""


def need_packages(*names: str) -> None:
    """Raises `UserError` where the base install alone is there."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise UserError(
            f"this needs {', '.join(absent)}, which the base install leaves out; "
            f"install the extra: {how_to_install('factory')}"
        )


@contextlib.contextmanager
def run_log(out: str, name: str) -> Iterator[Path]:
    """The file that everything but the display is printed to, in the run folder where that is local.

    A run that was refused before it began leaves neither a log nor folders that were made for it.
    """
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    local, root = not storage.is_remote(out), Path(storage.normalise(out))
    log = root / "logs" / stamp if local else scratch.place("logs", f"{name}-{stamp}")
    made = [path for path in (log.parent, log.parent.parent) if not path.exists()]
    if local:
        forget_logs(log.parent)
    try:
        yield log
    except UserError:
        with contextlib.suppress(OSError):
            if log.stat().st_size and (not local or (root / run_files.RUN_FILE).exists()):
                raise  # it had begun: the log says what happened
            log.unlink()
            for path in made:
                path.rmdir()
        raise


def watch(
    config: Experiment, spec: EnvSpec, out: str, address: str | None, terminal: Terminal, as_json: bool
) -> RunSummary:
    """Runs, feeds the display, and turns signals into an orderly end."""
    from selfplay.cli.display import make
    from selfplay.cli.farewell import going_on
    from trainers.kinds import kind_of

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("WANDB_SILENT", "true")
    display = make(terminal.out, terminal.err, as_json)
    stop = threading.Event()
    file = file_of(config)
    advice = f"nothing that was archived is lost, and `{going_on(out, file)}` goes on"
    words: LastWords | None = None

    def end(sentence: str, code: int) -> None:
        """Ends the process where its main thread cannot: the terminal is given back, as far as that is possible."""
        if words is not None:
            words.taken()
        closing = threading.Thread(target=display.close, daemon=True)
        closing.start()
        closing.join(2.0)
        print(tame(f"error: {sentence}"), file=terminal.err, flush=True)
        os._exit(code)

    def asked() -> None:
        stop.set()
        display.stopping()
        if words is not None:
            words.asked()

    try:
        with stopping(asked, lambda: end("aborted", 130)) as rearm:
            display.update(kind_of(config).first_status(config, spec.id, out, "starting Ray and loading torch"))
            from trainers import launch
            from trainers.run import ray_session

            def on_status(status: RunStatus) -> None:
                rearm()
                terminal.rotate()
                display.update(status)

            words = ray_session.LastWords(terminal.err.fileno(), advice, lambda sentence: end(sentence, 1), stop=stop)
            summary = launch.run(
                config=config, spec=spec, out=out, address=address, on_status=on_status, stop=stop, words=words
            )
        display.finish(summary, file)
        return summary
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        from trainers.run import failure_causes

        if failure_causes.passes(error):
            raise Logged(f"the run broke: {failure_causes.in_words(error)}; {advice}", terminal.log) from error
        raise Logged(
            f"the run broke: {failure_causes.in_words(error)}; if the same command breaks again, a file in {out} may "
            f"be damaged: `{command('repair', out)}` looks at them all",
            terminal.log,
        ) from error
    finally:
        display.close()
