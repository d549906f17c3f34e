r"""Reads the shape of an answer (`shapes.py`) from its text.

The grammar is strict and uses every token. Conventions, where mathematics leaves a choice:

- "1,000" is a number and "1, 0" a list; inside brackets commas always separate. Only ASCII digits are digits.
- A bare list and the words "and", "or" list values without order, each as often as it stands there; {…} is a set.
- "%" is a unit. Other units may be missing on one side; they are never converted. "million" multiplies.
- "seven" is 7, up to twenty and where it is a whole answer. Brackets round one item, "[7]" or "\{7\}", are not 7.
- ", k \in \mathbb{Z}" at the end only says what k is, and may be missing.
- A number with a base, "101_2", is another answer than the number without.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from selfplay.answers.brackets import balanced, closing, is_sign, split, unwrapped
from selfplay.answers.labels import based, infinite, mentions, names_of, plain_words, worded
from selfplay.answers.shapes import (
    REALS,
    Collection,
    Group,
    Joined,
    Labelled,
    Matrix,
    Quantity,
    Relation,
    Shape,
)
from selfplay.answers.tokens import Token, Unreadable, tokens
from selfplay.answers.tree import DEGREE, Node, expression, spelled
from selfplay.answers.units import MAGNITUDES, unit

_BRACKETS = {"(": "(", "[": "[", r"\{": "{", r"\langle": "<", ")": ")", "]": "]", r"\}": "}", r"\rangle": ">"}
_RELATIONS = {"=", "<", ">", "le", "ge", "ne"}
_MOST_ITEMS = 60


def shape(text: str, words: frozenset[str] | None) -> Shape:
    """The shape of an answer. words: what may follow a number besides units; None: any words, for a right answer.

    Raises `Unreadable`, and says why.
    """
    found = tokens(text)
    balanced(found)
    if found and is_sign(found[-1], "."):
        found.pop()
    elif found and found[-1].kind == "text" and found[-1].text.endswith(".") and not found[-1].text.endswith(".."):
        found[-1] = replace(found[-1], text=found[-1].text[:-1])  # \\text{no.}
    found = _without_integers(found)
    return _Shapes(words).listing(unwrapped(found))


def _without_integers(found: list[Token]) -> list[Token]:
    """Without ", k \in \mathbb{Z}" at the end, where what is before mentions k."""
    if len(found) < 5 or found[-1].text != "integers" or found[-2].text != "in" or not is_sign(found[-4], ",", ";"):
        return found
    name, before = found[-3], found[:-4]
    mentioned = any(token.kind == "letters" and name.text in token.text for token in before)
    return before if name.kind == "letters" and len(name.text) == 1 and mentioned else found


def _joins(token: Token) -> str:
    """ "," "and" "or", or "" for what joins nothing."""
    if is_sign(token, ",", ";"):
        return ","
    if token.kind == "command" and token.text in ("lor", "land"):
        return "or" if token.text == "lor" else "and"
    word = token.text.strip().lower().strip(",").strip() if token.kind in ("text", "letters") else ""
    return word if word in ("and", "or") else ""


class _Shapes:
    def __init__(self, words: frozenset[str] | None) -> None:
        self.words = words
        self.known = None if words is None else {word for unit in words for word in unit.split()}

    def listing(self, found: list[Token]) -> Shape:
        """Several items with commas, "and" or "or" between them, or one."""
        if not found:
            raise Unreadable("it is empty")
        words = plain_words(found)
        if words is not None and not {"or", "and"} & set(words.split()):
            return worded(words)
        parts, between = split(found, _joins)
        joins = [_joins(token) for token in between]
        if len(parts) > 2 and not parts[-2] and joins[-2] == "," and joins[-1] in ("and", "or"):  # "1, 2, and 3"
            del parts[-2], joins[-2]
        if len(parts) > _MOST_ITEMS:
            raise Unreadable(f"it lists more than {_MOST_ITEMS} items")
        items = tuple(self.item(part) for part in parts)
        if len(items) == 1:
            return items[0]
        return self.joined(items, set(joins))

    def joined(self, items: tuple[Shape, ...], joins: set[str]) -> Shape:
        conditions = [_is_condition(item) for item in items]
        if any(conditions):
            if not all(conditions) or len(joins) != 1 or "," in joins:
                raise Unreadable('conditions need one of the words "and" and "or" between them')
            return Joined("union" if joins == {"or"} else "intersection", items)
        first = items[0]
        if isinstance(first, Labelled) and not any(isinstance(item, Labelled) for item in items[1:]):
            return Labelled(first.names, Collection("list", (first.body, *items[1:])))  # x = 2, -2
        labelled = [item for item in items if isinstance(item, Labelled)]
        if len(labelled) == len(items) and len({item.names for item in labelled}) == 1:
            return Labelled(labelled[0].names, Collection("list", tuple(item.body for item in labelled)))
        if labelled and len(labelled) < len(items):
            raise Unreadable("some of its values are named and some are not")
        if labelled and "or" in joins:
            raise Unreadable('"or" stands between values of different names')
        return Collection("list", items)

    def item(self, found: list[Token]) -> Shape:
        """Sides with signs of relations between them."""
        if not found:
            raise Unreadable("an item is missing between commas")
        member, _ = split(found, lambda token: token.kind == "command" and token.text == "in")
        if len(member) == 2:
            names = names_of(member[0])
            if names is None:
                raise Unreadable("what is before \\in is no name")
            return Labelled(names, self.side(member[1]))
        sides, signs = split(found, lambda token: token.kind == "sign" and token.text in _RELATIONS)
        if len(sides) == 1:
            return self.side(found)
        marks = tuple(sign.text for sign in signs)
        if set(marks) == {"="}:
            return self.equation(sides)
        return Relation(tuple(self.side(side) for side in sides), marks)

    def equation(self, sides: list[list[Token]]) -> Shape:
        first, last = names_of(sides[0]), names_of(sides[-1])
        if first is not None and not mentions(sides[1:], first):
            return Labelled(first, self.chain(sides[1:]))
        if last is not None and len(sides) == 2 and not mentions(sides[:1], last):
            return Labelled(last, self.chain(sides[:1]))
        return self.chain(sides)

    def chain(self, sides: list[list[Token]]) -> Shape:
        found = tuple(self.side(side) for side in sides)
        return found[0] if len(found) == 1 else Relation(found, ("=",) * (len(found) - 1))

    def side(self, found: list[Token]) -> Shape:
        """A union of sets, or one set, value, matrix or text."""
        parts, between = split(found, lambda t: t.kind == "command" and t.text in ("cup", "cap", "setminus"))
        if len(parts) == 1:
            return self.single(unwrapped(found))
        kinds = {"cup": "union", "cap": "intersection", "setminus": "difference"}
        names = {kinds[token.text] for token in between}
        if len(names) != 1 or ("difference" in names and len(parts) != 2):
            raise Unreadable("different operations on sets need brackets")
        return Joined(names.pop(), tuple(self.single(part) for part in parts))

    def single(self, found: list[Token]) -> Shape:
        if not found:
            raise Unreadable("one side is empty")
        if (words := plain_words(found)) is not None:
            return worded(words)
        if (unbounded := infinite(found)) is not None:
            return unbounded
        if len(found) == 1 and found[0].kind == "command" and found[0].text in ("emptyset", "reals"):
            return REALS if found[0].text == "reals" else Collection("set", ())
        if found[0].kind == "command" and found[0].text.startswith("begin-"):
            return self.matrix(found)
        if len(found) > 2 and found[1].text == "begin-array" and found[-2].text == "end-array":
            if (found[0].text, found[-1].text) in (("(", ")"), ("[", "]")):
                return self.matrix(found[1:-1], "array")
        if (in_base := based(found)) is not None:
            return in_base
        if is_sign(found[0], *_BRACKETS) and closing(found, 0) == len(found) - 1 and not is_sign(found[0], "{"):
            if (group := self.group(found)) is not None:
                return group
        return self.quantity(found)

    def group(self, found: list[Token]) -> Shape | None:
        """What is in brackets; None for (x+1), which is an expression."""
        opens, closes, inside = _BRACKETS[found[0].text], _BRACKETS[found[-1].text], found[1:-1]
        if opens == "{" and closes == "}":
            return self.braces(inside)
        if not inside:
            raise Unreadable("the brackets are empty")
        parts, _ = split(inside, lambda token: is_sign(token, ","))
        if len(parts) == 1:
            if len(inside) > 1 and (words := plain_words(inside)) is not None:
                return worded(words)
            if (opens, closes) == ("(", ")"):
                return None
            raise Unreadable(f"what stands between {opens} and {closes} is one item")
        if len(parts) > _MOST_ITEMS:
            raise Unreadable(f"it lists more than {_MOST_ITEMS} items")
        return Group(opens, tuple(self.single(unwrapped(part)) for part in parts), closes)

    def braces(self, inside: list[Token]) -> Shape:
        if not inside:
            return Collection("set", ())
        for bar in ("|", ":"):
            parts, _ = split(inside, lambda token, bar=bar: is_sign(token, bar))  # type: ignore[misc]
            if len(parts) == 2 and names_of(parts[0]) is not None:
                return self.listing(parts[1])
        parts, _ = split(inside, lambda token: is_sign(token, ","))
        if len(parts) > _MOST_ITEMS:
            raise Unreadable(f"it lists more than {_MOST_ITEMS} items")
        return Collection("set", tuple(self.single(unwrapped(part)) for part in parts))

    def matrix(self, found: list[Token], *kinds: str) -> Shape:
        kind = found[0].text.removeprefix("begin-")
        if kind not in (kinds or ("pmatrix", "bmatrix", "matrix")) or found[-1].text != f"end-{kind}":
            raise Unreadable(f"an environment {kind!r} cannot be read")
        rows, _ = split(found[1:-1], lambda token: token.kind == "command" and token.text == "\\")
        if rows and not rows[-1]:
            rows.pop()
        cells = tuple(
            tuple(self.single(unwrapped(cell)) for cell in split(row, lambda token: is_sign(token, "&"))[0])
            for row in rows
        )
        if not cells or len({len(row) for row in cells}) != 1:
            raise Unreadable("the rows of the matrix are not of one length")
        return Matrix(cells)

    def quantity(self, found: list[Token]) -> Shape:
        """An expression, with a currency before it, or a unit or magnitude after it."""
        found, name = list(found), ""
        sign = found[:1] if is_sign(found[0], "-", "+") else []
        rest = found[len(sign) :]
        for mark, currency in (("$", "dollar"), ("euro", "euro"), ("pounds", "lb"), ("cent", "cent")):
            if rest and rest[0].text == mark and rest[0].kind != "text":
                inner = rest[1:]
                if not sign and inner and is_sign(inner[0], "-", "+"):
                    sign, inner = inner[:1], inner[1:]
                found, name = sign + inner, currency
        if not found:
            raise Unreadable("a number is missing")
        if is_sign(found[-1], "%"):
            found, name = found[:-1], _one_unit(name, "%")
        elif is_sign(found[-1], "$"):
            found, name = found[:-1], _one_unit(name, "dollar")
        else:
            found, words = self.trailing(found)
            scale, words = _magnitude(words)
            if words:
                given = (
                    "%" if words in ("percent", "per cent") else unit(words) or (words if self._known(words) else None)
                )
                if given is None:
                    raise Unreadable(f"the words {words[:60]!r} follow the number")
                name = _one_unit(name, given)
            if scale != 1:
                return Quantity(Node("number", value=_number(found) * scale), name)
        if not found:
            raise Unreadable("a number is missing")
        node = expression(found)
        if node.kind == "product" and node.parts[1] == DEGREE and not name:
            return Quantity(node.parts[0], "degree")
        if node.kind == "negative" and node.parts[0].kind == "product" and node.parts[0].parts[1] == DEGREE:
            return Quantity(Node("negative", (node.parts[0].parts[0],)), "degree")
        return Quantity(node, name)

    def texty(self, token: Token) -> bool:
        """Whether it is text, or a run of letters that are a word and no product."""
        bare = token.kind == "letters" and len(token.text) > 1
        return token.kind == "text" or (bare and _is_word(token.text, self.known))

    def _known(self, words: str) -> bool:
        return words in self.words if self.words is not None else re.fullmatch("[A-Za-z ]+", words) is not None

    def trailing(self, found: list[Token]) -> tuple[list[Token], str]:
        """The tokens before the words at the end, and those words, with exponents and slashes between them."""
        end = len(found)
        while end > 1:
            token, before = found[end - 1], found[end - 2]
            if self.texty(token):
                end -= 1
            elif (
                token.kind == "number"
                and token.text in ("2", "3")
                and is_sign(before, "^")
                and end > 3
                and self.texty(found[end - 3])
            ):
                end -= 2
            elif is_sign(token, "}") and end >= 5 and is_sign(found[end - 3], "{") and is_sign(found[end - 4], "^"):
                if found[end - 2].text not in ("2", "3") or not self.texty(found[end - 5]):
                    break
                end -= 4
            elif is_sign(token, "/") and end < len(found) and self.texty(before):
                end -= 1
            else:
                break
        if end and is_sign(found[end - 1], "/", "^"):
            raise Unreadable("a sign stands before words")
        words = "".join(f" {token.text} " if token.kind in ("text", "letters") else token.text for token in found[end:])
        words = " ".join(words.replace("{", "").replace("}", "").split())
        return found[:end], re.sub(r" ?\^ ?", "^", words)


def _is_word(word: str, known: set[str] | None) -> bool:
    if unit(word) is not None or word in MAGNITUDES or word in ("percent", "per", "square", "sq", "cubic"):
        return True
    if known is not None:
        return word in known and len(word) > 2
    try:
        spelled(word)
    except Unreadable:
        return True
    return False


def _one_unit(before: str, after: str) -> str:
    if before and before != after:
        raise Unreadable("it has two units")
    return after


def _magnitude(words: str) -> tuple[int, str]:
    """ "5 million dollars": the factor, and the words that are left."""
    scale, left = 1, words.split()
    while left and left[0] in MAGNITUDES:
        scale *= MAGNITUDES[left.pop(0)]
    return scale, " ".join(left)


def _number(found: list[Token]) -> Fraction:
    sign = -1 if is_sign(found[0], "-") else 1
    rest = found[1:] if is_sign(found[0], "-", "+") else found
    if len(rest) != 1 or rest[0].value is None:
        raise Unreadable("a word of a magnitude does not follow a number")
    return sign * rest[0].value


def _is_condition(item: Shape) -> bool:
    if isinstance(item, Relation):
        return set(item.signs) != {"="}
    return isinstance(item, Joined)
