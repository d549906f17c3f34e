"""Values that strangers wrote, as text of a Markdown page: they are read as what they say, never as markup or HTML."""

from __future__ import annotations

import unicodedata

_ESCAPED = {
    "<": "&lt;", ">": "&gt;", "&": "&amp;", "\\": "\\\\", "`": "\\`", "[": "\\[", "]": "\\]", "|": "\\|", "*": "\\*",
    "#": "\\#", "~": "\\~",
}  # fmt: skip


def visible(value: object) -> str:
    """One line of visible characters; what has no shape (controls, direction marks, halves of characters) is �."""
    text = " ".join(str(value).split())
    return "".join(one if one.isprintable() else " " if unicodedata.category(one) == "Zs" else "\ufffd" for one in text)


def plain(value: object) -> str:
    """The same, with all that Markdown or HTML would obey escaped. Addresses do not become links."""
    text = "".join(_ESCAPED.get(one, one) for one in visible(value))
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
