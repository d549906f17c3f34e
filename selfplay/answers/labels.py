"""What is not an expression: words, infinities, numbers with a base, ratios, and names before an equals sign."""

from __future__ import annotations

import re
from fractions import Fraction

from selfplay.answers.brackets import is_sign, split, unwrapped
from selfplay.answers.shapes import REALS, Collection, Infinite, Quantity, Shape, Words
from selfplay.answers.tokens import Token, Unreadable
from selfplay.answers.tree import GREEK, Node

_BASES = {
    word: str(base)
    for base, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)
}

_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
#: Words of numbers that are read where they are a whole answer.
NUMBERS = {word: number for number, word in enumerate(_WORDS.split())}


def plain_words(found: list[Token]) -> str | None:
    """The words, if all of it is words: "no solution". One letter, or letters that can be a product, are none."""
    if not found or any(
        token.kind not in ("letters", "text") and not is_sign(token, "'", "-") and token.kind != "bold"
        for token in found
    ):
        return None
    words = " ".join(" ".join(token.text for token in found).split()).lower()
    single = len(found) == 1 and found[0].kind == "letters"
    if not re.fullmatch(r"[a-z][a-z' -]*", words) or not re.search("[a-z]{2}", words):
        return None
    if single and len(words) <= 4 and found[0].text.islower():
        if not set(words) & set("aeiou") or (set(words) <= set("abc") and len(set(words)) == len(words)):
            return None
    if single and words in ("pi", "ln", "sin", "cos", "tan", "log", "exp"):
        return None
    if sum(token.kind == "letters" for token in found) > 1 and all(len(token.text) == 1 for token in found):
        return None  # x y z
    return words


def worded(words: str) -> Shape:
    if words in NUMBERS:
        return Quantity(Node("number", value=Fraction(NUMBERS[words])))
    if words in ("infinity", "positive infinity"):
        return Infinite(1)
    if words == "negative infinity":
        return Infinite(-1)
    if words in ("all real numbers", "all reals", "the real numbers", "all real x"):
        return REALS
    if words in ("no solution", "no solutions", "the empty set", "empty set"):
        return Collection("set", ())
    return Words(words)


def infinite(found: list[Token]) -> Infinite | None:
    last = found[-1]
    if last.kind != "command" or last.text != "infty" or len(found) > 2:
        return None
    if len(found) == 1 or is_sign(found[0], "+"):
        return Infinite(1)
    if is_sign(found[0], "-"):
        return Infinite(-1)
    return Infinite(0) if found[0].text == "pm" else None


def based(found: list[Token]) -> Words | None:
    """101_2, 1A_{16}, 3:4."""
    parts, marks = split(found, lambda token: is_sign(token, ":"))
    if len(parts) > 1:
        if not all(len(part) == 1 and part[0].kind == "number" for part in parts):
            raise Unreadable("a ratio of what are not numbers")
        return Words(" : ".join(str(part[0].value) for part in parts))
    places = [place for place, token in enumerate(found) if is_sign(token, "_")]
    if len(places) != 1 or not places[0]:
        return None
    head, tail = found[: places[0]], unwrapped(found[places[0] + 1 :])
    if (
        not all(token.kind in ("number", "letters", "text") for token in head)
        or head[0].kind == "letters"
        and len(head) == 1
        and len(head[0].text) == 1
    ):
        return None
    digits = "".join(token.text.strip() for token in head).upper()
    if len(tail) != 1 or not re.fullmatch(r"[0-9A-Z]+", digits) or not any(char.isdigit() for char in digits):
        return None
    base = _BASES.get(tail[0].text.strip().lower(), tail[0].text.strip())
    if not re.fullmatch(r"[0-9]{1,2}", base):
        return None
    if not 2 <= int(base) <= 36 or any(int(digit, 36) >= int(base) for digit in digits):
        raise Unreadable(f"{digits[:40]} is no number of base {base}")
    return Words(f"{digits.lstrip('0') or '0'} in base {int(base)}")


def names_of(found: list[Token]) -> tuple[str, ...] | None:
    """The names that a label gives: x, x_1, f(x), f^{-1}(x), f'(x), \\theta, (x,y), "Area"; None for no label."""
    text = "".join(f"\\{token.text}" if token.kind == "command" else token.text.strip() for token in found)
    letter = r"(?:[A-Za-z]|\\(?:" + "|".join(sorted(GREEK, key=len, reverse=True)) + "))"
    if re.fullmatch(rf"{letter}(?:_(?:[A-Za-z0-9]|\{{[A-Za-z0-9,]+\}}))?'*", text) and text not in ("e", "i"):
        return (text.replace("{", "").replace("}", ""),)
    if re.fullmatch(rf"[A-Za-z](?:\^(?:\{{-1\}}|-1))?'*\({letter}\)", text):
        return (text.replace("{", "").replace("}", ""),)
    if re.fullmatch(r"\\frac\{?d[A-Za-z]?\}?\{?d[A-Za-z]\}?", text):
        return (text.replace("{", "").replace("}", ""),)
    if re.fullmatch(r"m?\\angle\{?[A-Z]{1,3}\}?", text):
        return (text.removeprefix("m").replace("{", "").replace("}", ""),)
    if re.fullmatch(rf"\({letter}(?:,{letter})+\)", text):
        return tuple(text[1:-1].split(","))
    if len(found) <= 3 and all(token.kind == "text" for token in found) and re.fullmatch("[A-Za-z]{3,20}", text):
        return (text.lower(),)
    return None


def mentions(sides: list[list[Token]], names: tuple[str, ...]) -> bool:
    """Whether a side mentions a name, so that it is an equation and not a label."""
    for side in sides:
        for token in side:
            written = f"\\{token.text}" if token.kind == "command" else token.text
            if written in names or (token.kind == "letters" and len(token.text) <= 4 and set(token.text) & set(names)):
                return True
    return False
