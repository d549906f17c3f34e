"""Text that a model or a stranger wrote, made safe for a terminal: nothing in it can move a cursor or hide a word.

Everything that the commands print goes through two doors: lines through `say`, tables and styled text through
`selfplay.cli.console.Console`. Both tame whatever they are given, so that no command can forget it. What they cannot
know is where a value ends: a value that stands in a line or a cell goes through `cell` (`plain_markup` inside rich
markup), so that a line end in it cannot begin a line of its own. JSON is printed with `typer.echo(json.dumps(…))`,
which encodes what is not ASCII.
"""

from __future__ import annotations

import re
import sys
import unicodedata

#: Combining characters that one character may carry; more of them would smear over the lines around.
_MOST_MARKS = 2
_TOO_MANY = re.compile(r"\n{3,}")


def tame(text: str, most: int | None = None) -> str:
    """`text` without what a terminal would obey: visible characters, spaces and line ends alone are left.

    An escape is shown as ␛ and other control characters by their pictures; what has neither picture nor shape
    (direction marks, joiners, halves of characters) as �. Longer than `most` characters: the middle is left out.
    The result is text, never markup: give it to `rich.text.Text`.
    """
    if most is not None:
        text = elided(text, most)
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    shown: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks <= _MOST_MARKS:
            shown.append(_visible(character))
    return "".join(shown)


def one_line(text: str, most: int = 20_000) -> str:
    """The same in one line: every run of white space is one space."""
    return " ".join(tame(elided(text, 4 * most)).split())[:most]


def compact(text: str, most: int) -> str:
    """The same with one empty line at most between two others, and none around."""
    return _TOO_MANY.sub("\n\n", tame(text, most)).strip()


def cell(value: object, most: int = 500) -> str:
    """A value as one tamed line, for a table or a sentence; empty for None. Give it to `rich.text.Text` or `say`."""
    return "" if value is None else one_line(str(value), most)


def say(text: str, err: bool = False) -> None:
    """Prints one line, tamed, to standard output or standard error."""
    print(tame(text).replace("\n", " "), file=sys.stderr if err else sys.stdout, flush=True)


def elided(text: str, most: int) -> str:
    """The beginning and the end of a long text, where a problem is posed and where its answer stands."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[len(text) - half :]}"


def _visible(character: str) -> str:
    if character == "\n" or character.isprintable():
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return " " if unicodedata.category(character) == "Zs" else "�"
