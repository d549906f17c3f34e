"""The folder in which a command runs is data, too: nothing there is imported, and no library is steered by it.

A downloaded corpus or run is often looked at from inside its folder. Python puts the working folder before its own
library for `python -c`, which is how helper processes are started; numba and wandb obey files of settings there. A
module of a common name, or a line of settings, would then run as the user or send his keys away.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from selfplay.errors import UserError

#: Numba reads it from the working folder; the folder of cached, pickled code is among its settings.
NUMBA_FILE = ".numba_config.yaml"
#: wandb reads these; the address to which the user's key is sent is among their settings.
WANDB_FILES = ("wandb/settings", ".wandb/settings")
_SAFE_PATH = "PYTHONSAFEPATH"
_ROOT = str(Path(__file__).resolve().parent.parent)


def command(code: str, *arguments: str) -> list[str]:
    """A command line that runs `code` in a process of its own, which finds this package and nothing by the folder.

    code: Python that may import `selfplay`.
    """
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({_ROOT!r}); {code}", *arguments]


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Processes that `multiprocessing` starts meanwhile do not look for modules in the working folder."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE_PATH]
        if before is not None:
            os.environ[_SAFE_PATH] = before


def leave_out() -> None:
    """The same for all processes that this one starts from now on, and for theirs."""
    os.environ[_SAFE_PATH] = "1"


def refuse_settings(*names: str) -> None:
    """Raises `UserError` where the working folder holds one of these files, which a library would obey."""
    for name in names:
        if os.path.lexists(name):
            raise UserError(
                f"{Path.cwd() / name} is a settings file that a library would obey, and it can make that library run "
                "code or send keys elsewhere; run the command in another folder, or move the file away"
            )
