r"""Finds the answer in a text: after ####, in a box, between tags; and takes off what dresses it."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

#: Characters of a text that is read.
MOST_TEXT = 200_000
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,15})(?:\.[0-9]{1,60})?")
_LOOSE_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,60}|[0-9]{1,3}(?:(?P<gap>[,\u00a0\u2009\u202f ]|\\,|\{,\})[0-9]{3}(?:(?P=gap)[0-9]{3}){0,14})?)"
    r"(?:\.[0-9]{0,60})?(?:[eE][+-]?[0-9]{1,2})?|[+-]?\.[0-9]{1,60}(?:[eE][+-]?[0-9]{1,2})?"
)
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|\u20ac|\u00a3|US\$)\s*([+-]?)(?=[0-9.])")
_UNIT_TEXT = re.compile(r"\\(?:text|mathrm)\{[\s~]*([^{}\\~]{1,40}?)\s*\}$")
_BOX = re.compile(r"\\boxed\s*\{")
_OPENED, _CLOSED, _MOST_NESTED = re.compile(r"\\boxed\s*\{\s*$"), re.compile(r"\s{0,20}\}"), 8
_AFTER_BOX = re.compile(r"[\s.$*)\]\\]{0,20}")
_FENCED = re.compile(r"```[A-Za-z]{0,12}[ \t]*\n(.*)\n?```|```([^`\n]*)```|`([^`\n]+)`", re.DOTALL)
#: Pairs of marks round a whole answer that only change how it looks.
_DRESS = (
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
)


def number(text: str) -> Fraction | None:
    """The number that the whole text is: ASCII digits, perhaps with commas between thousands; None if it is none."""
    return Fraction(Decimal(text.replace(",", ""))) if _NUMBER.fullmatch(text) else None


def loose_number(text: str, units: tuple[str, ...] = ()) -> Fraction | None:
    """As `number`, of a dressed text, with what people write besides: "42.", ".5", "-$5", "1 234", "1e3".

    units: words that may follow the number.
    """
    text = _UNIT_TEXT.sub(r" \1", undressed(text))
    for word in units:
        if text.endswith(word) and len(text) > len(word) and not text[-len(word) - 1].isalpha():
            text = undressed(text[: -len(word)])
            break
    text = text.replace("\u2212", "-")
    text = _CURRENCY.sub(lambda found: found[1] + found[2], text).removesuffix("$").strip()
    if _LOOSE_NUMBER.fullmatch(text) is None:
        return None
    return Fraction(Decimal(re.sub(r"[,{}\\\s]", "", text)))


def undressed(text: str) -> str:
    r"""An answer without what only changes how it looks: **…**, `…`, a code fence, $…$, \boxed{…}, a final full stop.

    Nothing inside of the answer changes, and what is dressed in part is left as it is: "**4** or 5".
    """
    for _ in range(12):
        before, text = text, text.strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        if (fenced := _FENCED.fullmatch(text)) is not None:
            inside = next(part for part in fenced.groups() if part is not None)
            text = text if "```" in inside else inside
        for opens, closes in _DRESS:
            inside = text[len(opens) : len(text) - len(closes)]
            if text.startswith(opens) and text.endswith(closes) and inside and opens not in inside:
                if closes not in inside and inside.strip():
                    text = inside
                    break
        held = _held(text, 0)
        if held is not None and held[1] == len(text):
            text = held[0]
        if text == before:
            break
    return text


def after_hashes(text: str) -> str | None:
    """What follows the last "####", to the end, without white space around it; None where there is no "####"."""
    _, found, answer = text.rpartition("####")
    return answer.strip() if found and len(text) <= MOST_TEXT else None


def boxed(text: str) -> str | None:
    r"""What the last \boxed{…} of a text holds, braces balanced; None where there is none or it does not close."""
    inside = _last_box(text)
    return None if inside is None else inside[0].strip()


def final_box(text: str) -> str | None:
    r"""As `boxed`, and nothing but punctuation follows the box."""
    inside = _last_box(text)
    return inside[0].strip() if inside is not None and _AFTER_BOX.fullmatch(text, inside[1]) else None


def _last_box(text: str) -> tuple[str, int] | None:
    last = text.rfind("\\boxed") if len(text) <= MOST_TEXT else -1
    held = _held(text, last) if last >= 0 else None
    for _ in range(_MOST_NESTED):  # \\boxed{\\boxed{42}}: what the inner one holds, and where the outer one ends
        outer = _OPENED.search(text, max(0, last - 20), last) if held is not None else None
        closed = _CLOSED.match(text, held[1]) if held is not None and outer is not None else None
        if outer is None or closed is None or held is None:
            break
        last, held = outer.start(), (held[0], closed.end())
    return held


def _held(text: str, at: int) -> tuple[str, int] | None:
    """What the braces of the box at this place hold, and where they end."""
    opened = _BOX.match(text, at)
    if opened is None:
        return None
    depth = 1
    for place in range(opened.end(), len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[opened.end() : place], place + 1
    return None
