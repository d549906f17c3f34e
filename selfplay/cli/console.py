"""The console of all commands: what is rendered on it is tamed, whoever wrote it (`selfplay.cli.untrusted`)."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.markup import escape
from rich.segment import Segment

from selfplay.cli.untrusted import cell, tame


class Console(rich.console.Console):
    """A rich console that tames all text which is rendered on it; its own styles and cursor movements work."""

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            harmless = control or text.isascii() and (text.isprintable() or text.replace("\n", "").isprintable())
            yield segment if harmless else Segment(tame(text), style, control)


def plain_markup(value: object, most: int = 500) -> str:
    """A value as one tamed line inside rich markup: its brackets are text."""
    return escape(cell(value, most))
