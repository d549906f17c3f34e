"""Which lines of a stack are an author's: not this package's, not Python's own, a library's only for want of others.

The watching process reads stacks as `faulthandler` writes them, which it does even where a loop in C never returns.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import FrameSummary
from types import FrameType

_OURS = str(Path(__file__).parents[2])
_PYTHON = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen", "<string>"})
_LIBRARIES = ("site-packages", "dist-packages")
_LINE = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_STACK = "(most recent call first):"


@dataclass(frozen=True)
class Frame:
    """A line under way. name: of the function."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, in {self.name}"


def authors(frames: Iterable[Frame]) -> list[Frame]:
    """Those of a stack that are the author's, in their order; those of libraries if there are none."""
    found = [one for one in frames if not _is_ours(one.file) and not _is_python(one.file)]
    return [one for one in found if not any(part in one.file for part in _LIBRARIES)] or found


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS)


def _is_python(file: str) -> bool:
    return file.startswith(_PYTHON) and not any(part in file for part in _LIBRARIES)


def raised(trace: Sequence[FrameSummary]) -> Frame:
    """The author's line that raised an exception, or the line that did, if it is not the author's."""
    frames = [Frame(one.filename, one.lineno or 0, one.name) for one in trace]
    return (authors(frames) or frames)[-1]


def calling(frame: FrameType | None) -> Frame | None:
    """The author's line that is calling this process's code."""
    frames = []
    while frame is not None:
        frames.append(Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return next(iter(authors(frames)), None)


def dumped(text: str) -> list[Frame]:
    """The author's lines of the last stack that `faulthandler` wrote, the innermost first."""
    lines = _LINE.findall(text.rpartition(_STACK)[2])
    return authors([Frame(file, int(line), name) for file, line, name in lines])
