"""`selfplay`: the verbs, and what a person sees when something is wrong.

A verb's module is imported when the verb is used, so that `selfplay --help` is quick and the base install, which has
neither torch nor ray, can use all the verbs that need neither. Exit codes: 0 done; 1 something broke (one sentence and
a log with the traceback) or a check failed; 2 what the user gave cannot be used (one sentence); 130 aborted.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from selfplay import surroundings
from selfplay._version import VERSION
from selfplay.cli import memory
from selfplay.cli.terminal import Logged, one_line
from selfplay.cli.untrusted import say
from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.io import scratch

HELP = """A factory for verified self-play data: agents play games against themselves, every game is archived and can be
replayed, and nets learn from the archive."""
EXAMPLES = """Examples:  selfplay run connect_four  ·  selfplay run "openspiel:hex(board_size=5)" --minutes 5  ·
selfplay play runs/connect_four"""

ABORTED = 130
#: Verbs that read what a stranger may have written, and need little memory themselves.
_READERS = ("corpus", "repair", "top")

#: Errors of the machine that a person can do something about: they end like bad input.
MACHINE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk cannot be read or written",
    errno.ENOTDIR: "a file is where a folder must be",
    errno.ELOOP: "a link leads back to itself",
    errno.ENAMETOOLONG: "the name is too long for a file",
}
#: How libraries of Rust tell the system's number of an error, and a place.
_TOLD, _PLACE = re.compile(r"\(os error ([0-9]{1,4})\)"), re.compile(r"(?<![\w/])/[^\s\"':]+")


@dataclass(frozen=True)
class Verb:
    """load: imports the verb's function, or its `typer.Typer` where it has verbs of its own."""

    summary: str
    load: Callable[[], Any]


def _run() -> Any:
    from selfplay.cli.run import run

    return run


def _recipes() -> Any:
    from selfplay.cli.recipes import recipes

    return recipes


def _play() -> Any:
    from selfplay.cli.play import play

    return play


def _bench() -> Any:
    from selfplay.cli.bench import app

    return app


def _check_env() -> Any:
    from selfplay.cli.check_env import check_env

    return check_env


def _envs() -> Any:
    from selfplay.cli.envs import envs

    return envs


def _corpus() -> Any:
    from selfplay.cli.corpus import app

    return app


def _repair() -> Any:
    from selfplay.cli.repair import repair

    return repair


def _doctor() -> Any:
    from selfplay.cli.doctor import doctor

    return doctor


def _top() -> Any:
    from selfplay.cli.top import top

    return top


def _tune() -> Any:
    from selfplay.cli.tune import tune

    return tune


VERBS = {
    "run": Verb("Play, archive and learn: a recipe or any game that can be searched.", _run),
    "play": Verb("Play against what was trained.", _play),
    "recipes": Verb("List the recipes that ship, or every setting of one.", _recipes),
    "envs": Verb("List the environments that are installed.", _envs),
    "check-env": Verb("Check a new environment: an id or a Python file.", _check_env),
    "corpus": Verb("Show, count, query, verify and follow archived episodes.", _corpus),
    "repair": Verb("Make a run or a corpus whole again after a power cut or a bad disk.", _repair),
    "top": Verb("Watch runs, wherever they run.", _top),
    "tune": Verb("Try settings of a recipe against each other, with Ray Tune.", _tune),
    "bench": Verb("Measure the speed of this machine.", _bench),
    "doctor": Verb("Check the installation and the machine.", _doctor),
}


def application(verb: str | None) -> typer.Typer:
    """The command line with `verb` loaded and every other verb as a name and a summary."""
    app = typer.Typer(help=HELP, epilog=EXAMPLES, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
    app.callback()(_options)
    for name, entry in VERBS.items():
        target = entry.load() if name == verb else _stub
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, short_help=entry.summary)
        else:
            app.command(name, short_help=entry.summary)(target)
    return app


def _stub() -> None:
    raise AssertionError("a verb was called that was not loaded")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """The entry point of the `selfplay` script."""
    surroundings.leave_out()
    if sys.argv[1:2] and sys.argv[1] in _READERS:
        memory.bound()
        leave(call(sys.argv[1:]))
    sys.exit(call(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """Ends the process at once, without taking the interpreter down.

    Threads of pyarrow may still read ahead or hold a buffer of Python's. One that lets go of it while the interpreter
    is taken down ends the process with SIGABRT: what was said stays, and the exit code is lost.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it is gone, or the disk is full
            code = code or 1
    os._exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit code; prints one sentence for whatever went wrong."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        surroundings.refuse_settings(surroundings.NUMBA_FILE)
        result = application(verb)(list(arguments), prog_name="selfplay", standalone_mode=False)
        sys.stdout.flush()
        code = int(result) if isinstance(result, int) else 0  # typer turns Ctrl-C into 130
        return _say("aborted", code) if code == ABORTED else code
    except UserError as error:
        return _say(str(error), 2)
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        return _usage(error, verb)
    except (KeyboardInterrupt, typer.Abort):
        return _say("aborted", ABORTED)
    except BrokenPipeError:
        # Whoever read our output is gone (`selfplay … | head`); nothing may be written on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _say("this needs more memory than the machine has; a data file may unpack to more than it says", 2)
    except ModuleNotFoundError as error:
        return _missing(error)
    except Logged as error:
        return _say(f"{error} (the traceback is in {error.log})", 1)
    except Exception as error:
        of_machine = _of_machine(error)
        return _broken(error) if of_machine is None else _say(of_machine, 2)


def _of_machine(error: Exception) -> str | None:
    """What a person can do something about, in words; None for any other error.

    Libraries of Rust raise their own exceptions, or `OSError` without a number, and tell it in the text alone.
    """
    if isinstance(error, OSError) and error.errno in MACHINE:
        return f"{MACHINE[error.errno]}{f': {error.filename}' if error.filename else ''}"
    told = _TOLD.search(str(error))
    if told is None or int(told[1]) not in MACHINE:
        return None
    place = _PLACE.search(str(error))
    return f"{MACHINE[int(told[1])]}{f': {place[0]}' if place else ''}"


def _say(sentence: str, code: int) -> int:
    say(f"error: {sentence}", err=True)
    return code


def _usage(error: typer.TyperException, verb: str | None) -> int:
    """A command line that cannot be read."""
    text = getattr(error, "format_message", lambda: str(error))()
    if not text.strip() or type(error).__name__ == "NoArgsIsHelpError":
        print(text or "")
        return 0
    message = text.strip().rstrip(".")
    known = verb if verb in VERBS else None
    return _say(f"{message[:1].lower()}{message[1:]}; see `selfplay {f'{known} ' if known else ''}--help`", 2)


def _missing(error: ModuleNotFoundError) -> int:
    name = (error.name or "").split(".")[0]
    if name in ("selfplay", "envs", "trainers", ""):
        return _broken(error)
    return _say(f"this needs the package {name!r}, which an extra brings: {how_to_install('factory')}", 2)


def _broken(error: Exception) -> int:
    """A fault of ours: one sentence on the terminal, the traceback in a file."""
    reason = one_line(error)
    try:
        log = scratch.place("errors", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"selfplay {VERSION}: {' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}")
        return _say(f"{reason} (the traceback is in {log})", 1)
    except OSError:
        return _say(reason, 1)


if __name__ == "__main__":
    main()
