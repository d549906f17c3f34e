"""Commands that are shown can be copied into a shell, whatever the names in them are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import selfplay
from selfplay.commands import command

ROOT = Path(selfplay.__file__).parents[1]


def test_words_stay_whole() -> None:
    words = ["run", "--out", "/a b/$(touch x)", "it's", "select 1; --"]
    assert shlex.split(command(*words)) == ["selfplay", *words]


def test_no_command_is_put_together_by_hand() -> None:
    """A name in a command goes through `command`, which quotes it."""
    files = [*ROOT.glob("selfplay/**/*.py"), *ROOT.glob("trainers/**/*.py")]
    by_hand = re.compile(r"""(?:`|f"|f')selfplay [a-z-]+ [^`"'\n]*\{""")
    found = [f"{path.name}: {match.group()}" for path in files for match in by_hand.finditer(path.read_text())]
    assert len(files) > 200 and not found
