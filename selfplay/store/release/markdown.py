"""Values that strangers wrote, as text of a Markdown page: they are read as what they say, never as markup or HTML."""

from __future__ import annotations

import re
import unicodedata

_ESCAPED = {
    "<": "&lt;", ">": "&gt;", "&": "&amp;", "\\": "\\\\", "`": "\\`", "[": "\\[", "]": "\\]", "|": "\\|", "*": "\\*",
    "#": "\\#", "~": "\\~",
}  # fmt: skip
#: Underscores that are not inside a word; the first character of what would begin a list, a rule or a heading.
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK = re.compile(r"^(\d{0,9})(?=[-+](?:\s|\Z)|[-=]{2}|(?<=\d)[.)](?:\s|\Z))")


def visible(value: object) -> str:
    """One line of visible characters; what has no shape (controls, direction marks, halves of characters) is �."""
    text = " ".join(str(value).split())
    return "".join(one if one.isprintable() else " " if unicodedata.category(one) == "Zs" else "\ufffd" for one in text)


def plain(value: object) -> str:
    """The same, with all that Markdown or HTML would obey escaped. Addresses do not become links."""
    text = "".join(_ESCAPED.get(one, one) for one in visible(value))
    text = _BLOCK.sub(r"\1\\", _EMPHASIS.sub(r"\_", text))
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
