"""What an author's code prints goes to nobody's screen, and is counted."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from selfplay.environments.checks.frames import Frame, calling

_SHOWN = 60


class Heard(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr`. text: the beginning of what was printed. where: by which line."""

    def __init__(self) -> None:
        self.text = ""
        self.lines = 0
        self.where: Frame | None = None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.where is None and text.strip():
            self.where = calling(sys._getframe())
        if "\n" not in self.text.lstrip():
            self.text = (self.text + text)[:_SHOWN].lstrip()
        self.lines += text.count("\n")
        return len(text)

    def remark(self) -> str | None:
        """What to tell the author; None where nothing was printed."""
        if not self.text.strip():
            return None
        first = self.text.strip().splitlines()[0]
        place = f" ({self.where})" if self.where is not None else ""
        return (
            f"prints {first!r}{place}{f', {self.lines} lines in all' if self.lines > 1 else ''}; in a run this is "
            "dropped or goes to a log; take it out"
        )


@contextlib.contextmanager
def heard() -> Iterator[Heard]:
    """While it lasts, what Python code prints is kept from the screen."""
    sink = Heard()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield sink
