r"""What an answer is: a value, a list, a set, a pair or interval, an equation, a matrix, words.

The shape is read by a strict grammar that uses every token. Conventions, where mathematics leaves a choice:

- "1,000" is a number and "1, 0" a list; inside brackets commas always separate. Only ASCII digits are digits.
- A bare list and the words "and", "or" list values without order, each as often as it stands there; {…} is a set.
- "%" is a unit. Other units may be missing on one side; they are never converted. "million" multiplies.
- A number with a base, "101_2", is another answer than the number without.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from selfplay.answers.tokens import Token, Unreadable, tokens
from selfplay.answers.tree import DEGREE, GREEK, Node, expression, spelled
from selfplay.answers.units import MAGNITUDES, unit


@dataclass(frozen=True)
class Quantity:
    """An expression and its unit, "" where it has none."""

    node: Node
    unit: str = ""


@dataclass(frozen=True)
class Infinite:
    """sign: 1, -1, or 0 for both."""

    sign: int


@dataclass(frozen=True)
class Words:
    """Text without case: "east"; a number in a base: "101 in base 2"; a ratio."""

    text: str


@dataclass(frozen=True)
class Group:
    """Items in brackets: a point, an interval, a vector. opens, closes: "(", "[", "<" and so on."""

    opens: str
    items: tuple[Shape, ...]
    closes: str


@dataclass(frozen=True)
class Collection:
    """Values without order. kind: "list", each as often as it stands there, or "set"."""

    kind: str
    items: tuple[Shape, ...]


@dataclass(frozen=True)
class Labelled:
    """A name and what it is: x = 3; names: more than one for (x,y) = (1,2)."""

    names: tuple[str, ...]
    body: Shape


@dataclass(frozen=True)
class Relation:
    """Sides with signs between them: = < > le ge ne; several signs for a chain."""

    sides: tuple[Shape, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """Sets or conditions. kind: "union" (or), "intersection" (and) or "difference"."""

    kind: str
    parts: tuple[Shape, ...]


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Shape, ...], ...]


Shape = Quantity | Infinite | Words | Group | Collection | Labelled | Relation | Joined | Matrix
REALS = Group("(", (Infinite(-1), Infinite(1)), ")")

_OPENS, _CLOSES = {"(", "[", "{", r"\{", r"\langle"}, {")", "]", "}", r"\}", r"\rangle"}
_MATCH = {")": "([", "]": "([", "}": "{", r"\}": (r"\{",), r"\rangle": (r"\langle",)}
_BRACKETS = {"(": "(", "[": "[", r"\{": "{", r"\langle": "<", ")": ")", "]": "]", r"\}": "}", r"\rangle": ">"}
_RELATIONS = {"=", "<", ">", "le", "ge", "ne"}
_BASES = {
    word: str(base)
    for base, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)
}
_MOST_ITEMS = 60


def shape(text: str, words: frozenset[str] | None) -> Shape:
    """The shape of an answer. words: what may follow a number besides units; None: any words, for a right answer.

    Raises `Unreadable`, and says why.
    """
    found = tokens(text)
    _balanced(found)
    if found and _is(found[-1], "."):
        found.pop()
    return _Shapes(words).listing(_unwrapped(found))


def units_of(found: Shape) -> frozenset[str]:
    """The units and words after numbers anywhere in it."""
    if isinstance(found, Quantity):
        return frozenset({found.unit})
    parts: tuple[Shape, ...] = ()
    if isinstance(found, Group | Collection):
        parts = found.items
    elif isinstance(found, Labelled):
        parts = (found.body,)
    elif isinstance(found, Relation):
        parts = found.sides
    elif isinstance(found, Joined):
        parts = found.parts
    elif isinstance(found, Matrix):
        parts = sum(found.rows, ())
    return frozenset[str]().union(*(units_of(part) for part in parts))


def _balanced(found: list[Token]) -> None:
    """Raises `Unreadable` where brackets do not match; ( and [ may, as in [1,2)."""
    opened: list[str] = []
    for token in found:
        if token.kind == "sign" and token.text in _OPENS:
            opened.append(token.text)
        elif token.kind == "sign" and token.text in _CLOSES:
            if not opened or opened.pop() not in _MATCH[token.text]:
                raise Unreadable("its brackets do not match")
    if opened:
        raise Unreadable("a bracket does not close")


def _unwrapped(found: list[Token]) -> list[Token]:
    """Without a box, braces or \\text around all of it."""
    for _ in range(8):
        if len(found) >= 2 and found[0].text in ("boxed", "fbox") and found[0].kind == "command":
            found = found[1:]
        elif len(found) >= 2 and _is(found[0], "{") and _closing(found, 0) == len(found) - 1:
            found = found[1:-1]
        elif len(found) == 1 and found[0].kind == "text":
            inside = tokens(found[0].text)
            if len(inside) > 1 and all(token.kind == "letters" for token in inside):
                return found
            found = inside
        else:
            break
    return found


def _is(token: Token, *texts: str) -> bool:
    return token.kind == "sign" and token.text in texts


def _closing(found: list[Token], at: int) -> int:
    """Where the bracket that opens here closes, whatever kinds they are; -1 if it does not."""
    depth = 0
    for place in range(at, len(found)):
        token = found[place]
        if token.kind == "sign":
            depth += (token.text in _OPENS) - (token.text in _CLOSES)
            if depth == 0:
                return place
    return -1


def _split(found: list[Token], separates: object) -> tuple[list[list[Token]], list[Token]]:
    """Parts between the tokens outside of all brackets and environments that `separates` (a function) names."""
    parts: list[list[Token]] = [[]]
    between: list[Token] = []
    depth = 0
    for token in found:
        if token.kind == "sign":
            depth += (token.text in _OPENS) - (token.text in _CLOSES)
        elif token.kind == "command" and token.text.startswith(("begin-", "end-")):
            depth += 1 if token.text.startswith("begin-") else -1
        if depth < 0:
            raise Unreadable("a bracket closes that did not open")
        if depth == 0 and separates(token):  # type: ignore[operator]
            between.append(token)
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise Unreadable("a bracket does not close")
    return parts, between


def _joins(token: Token) -> str:
    """ "," "and" "or", or "" for what joins nothing."""
    if _is(token, ",", ";"):
        return ","
    if token.kind == "command" and token.text in ("lor", "land"):
        return "or" if token.text == "lor" else "and"
    word = token.text.strip().lower().strip(",").strip() if token.kind in ("text", "letters") else ""
    return word if word in ("and", "or") else ""


def _plain_words(found: list[Token]) -> str | None:
    """The words, if all of it is words: "no solution". One letter, or letters that can be a product, are none."""
    if not found or any(
        token.kind not in ("letters", "text") and not _is(token, "'", "-") and token.kind != "bold" for token in found
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


class _Shapes:
    def __init__(self, words: frozenset[str] | None) -> None:
        self.words = words
        self.known = None if words is None else {word for unit in words for word in unit.split()}

    def listing(self, found: list[Token]) -> Shape:
        """Several items with commas, "and" or "or" between them, or one."""
        if not found:
            raise Unreadable("it is empty")
        words = _plain_words(found)
        if words is not None and not {"or", "and"} & set(words.split()):
            return _worded(words)
        parts, between = _split(found, _joins)
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
        member, _ = _split(found, lambda token: token.kind == "command" and token.text == "in")
        if len(member) == 2:
            names = _names(member[0])
            if names is None:
                raise Unreadable("what is before \\in is no name")
            return Labelled(names, self.side(member[1]))
        sides, signs = _split(found, lambda token: token.kind == "sign" and token.text in _RELATIONS)
        if len(sides) == 1:
            return self.side(found)
        marks = tuple(sign.text for sign in signs)
        if set(marks) == {"="}:
            return self.equation(sides)
        return Relation(tuple(self.side(side) for side in sides), marks)

    def equation(self, sides: list[list[Token]]) -> Shape:
        first, last = _names(sides[0]), _names(sides[-1])
        if first is not None and not _mentions(sides[1:], first):
            return Labelled(first, self.chain(sides[1:]))
        if last is not None and len(sides) == 2 and not _mentions(sides[:1], last):
            return Labelled(last, self.chain(sides[:1]))
        return self.chain(sides)

    def chain(self, sides: list[list[Token]]) -> Shape:
        found = tuple(self.side(side) for side in sides)
        return found[0] if len(found) == 1 else Relation(found, ("=",) * (len(found) - 1))

    def side(self, found: list[Token]) -> Shape:
        """A union of sets, or one set, value, matrix or text."""
        parts, between = _split(found, lambda t: t.kind == "command" and t.text in ("cup", "cap", "setminus"))
        if len(parts) == 1:
            return self.single(_unwrapped(found))
        kinds = {"cup": "union", "cap": "intersection", "setminus": "difference"}
        names = {kinds[token.text] for token in between}
        if len(names) != 1 or ("difference" in names and len(parts) != 2):
            raise Unreadable("different operations on sets need brackets")
        return Joined(names.pop(), tuple(self.single(part) for part in parts))

    def single(self, found: list[Token]) -> Shape:
        if not found:
            raise Unreadable("one side is empty")
        if (words := _plain_words(found)) is not None:
            return _worded(words)
        if (infinite := _infinite(found)) is not None:
            return infinite
        if len(found) == 1 and found[0].kind == "command" and found[0].text in ("emptyset", "reals"):
            return REALS if found[0].text == "reals" else Collection("set", ())
        if found[0].kind == "command" and found[0].text.startswith("begin-"):
            return self.matrix(found)
        if (based := _based(found)) is not None:
            return based
        if _is(found[0], *_BRACKETS) and _closing(found, 0) == len(found) - 1 and not _is(found[0], "{"):
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
        parts, _ = _split(inside, lambda token: _is(token, ","))
        if len(parts) == 1:
            if len(inside) > 1 and (words := _plain_words(inside)) is not None:
                return _worded(words)
            return None if (opens, closes) == ("(", ")") else self._lone(opens, closes)
        if len(parts) > _MOST_ITEMS:
            raise Unreadable(f"it lists more than {_MOST_ITEMS} items")
        return Group(opens, tuple(self.single(_unwrapped(part)) for part in parts), closes)

    def _lone(self, opens: str, closes: str) -> Shape | None:
        if (opens, closes) == ("[", "]"):
            return None
        raise Unreadable(f"what stands between {opens} and {closes} is one item")

    def braces(self, inside: list[Token]) -> Shape:
        if not inside:
            return Collection("set", ())
        for bar in ("|", ":"):
            parts, _ = _split(inside, lambda token, bar=bar: _is(token, bar))  # type: ignore[misc]
            if len(parts) == 2 and _names(parts[0]) is not None:
                return self.listing(parts[1])
        parts, _ = _split(inside, lambda token: _is(token, ","))
        if len(parts) > _MOST_ITEMS:
            raise Unreadable(f"it lists more than {_MOST_ITEMS} items")
        return Collection("set", tuple(self.single(_unwrapped(part)) for part in parts))

    def matrix(self, found: list[Token]) -> Shape:
        kind = found[0].text.removeprefix("begin-")
        if kind not in ("pmatrix", "bmatrix", "matrix") or found[-1].text != f"end-{kind}":
            raise Unreadable(f"an environment {kind!r} cannot be read")
        rows, _ = _split(found[1:-1], lambda token: token.kind == "command" and token.text == "\\")
        if rows and not rows[-1]:
            rows.pop()
        cells = tuple(
            tuple(self.single(_unwrapped(cell)) for cell in _split(row, lambda token: _is(token, "&"))[0])
            for row in rows
        )
        if not cells or len({len(row) for row in cells}) != 1:
            raise Unreadable("the rows of the matrix are not of one length")
        return Matrix(cells)

    def quantity(self, found: list[Token]) -> Shape:
        """An expression, with a currency before it, or a unit or magnitude after it."""
        found, name = list(found), ""
        sign = found[:1] if _is(found[0], "-", "+") else []
        rest = found[len(sign) :]
        for mark, currency in (("$", "dollar"), ("euro", "euro"), ("pounds", "lb"), ("cent", "cent")):
            if rest and rest[0].text == mark and rest[0].kind != "text":
                inner = rest[1:]
                if not sign and inner and _is(inner[0], "-", "+"):
                    sign, inner = inner[:1], inner[1:]
                found, name = sign + inner, currency
        if not found:
            raise Unreadable("a number is missing")
        if _is(found[-1], "%"):
            found, name = found[:-1], _one_unit(name, "%")
        elif _is(found[-1], "$"):
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
                and _is(before, "^")
                and end > 3
                and self.texty(found[end - 3])
            ):
                end -= 2
            elif _is(token, "}") and end >= 5 and _is(found[end - 3], "{") and _is(found[end - 4], "^"):
                if found[end - 2].text not in ("2", "3") or not self.texty(found[end - 5]):
                    break
                end -= 4
            elif _is(token, "/") and end < len(found) and self.texty(before):
                end -= 1
            else:
                break
        if end and _is(found[end - 1], "/", "^"):
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
    sign = -1 if _is(found[0], "-") else 1
    rest = found[1:] if _is(found[0], "-", "+") else found
    if len(rest) != 1 or rest[0].value is None:
        raise Unreadable("a word of a magnitude does not follow a number")
    return sign * rest[0].value


def _worded(words: str) -> Shape:
    if words in ("infinity", "positive infinity"):
        return Infinite(1)
    if words == "negative infinity":
        return Infinite(-1)
    if words in ("all real numbers", "all reals", "the real numbers", "all real x"):
        return REALS
    if words in ("no solution", "no solutions", "the empty set", "empty set"):
        return Collection("set", ())
    return Words(words)


def _infinite(found: list[Token]) -> Infinite | None:
    last = found[-1]
    if last.kind != "command" or last.text != "infty" or len(found) > 2:
        return None
    if len(found) == 1 or _is(found[0], "+"):
        return Infinite(1)
    if _is(found[0], "-"):
        return Infinite(-1)
    return Infinite(0) if found[0].text == "pm" else None


def _based(found: list[Token]) -> Words | None:
    """101_2, 1A_{16}, 3:4."""
    parts, marks = _split(found, lambda token: _is(token, ":"))
    if len(parts) > 1:
        if not all(len(part) == 1 and part[0].kind == "number" for part in parts):
            raise Unreadable("a ratio of what are not numbers")
        return Words(" : ".join(str(part[0].value) for part in parts))
    places = [place for place, token in enumerate(found) if _is(token, "_")]
    if len(places) != 1 or not places[0]:
        return None
    head, tail = found[: places[0]], _unwrapped(found[places[0] + 1 :])
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


def _names(found: list[Token]) -> tuple[str, ...] | None:
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


def _mentions(sides: list[list[Token]], names: tuple[str, ...]) -> bool:
    """Whether a side mentions a name, so that it is an equation and not a label."""
    for side in sides:
        for token in side:
            written = f"\\{token.text}" if token.kind == "command" else token.text
            if written in names or (token.kind == "letters" and len(token.text) <= 4 and set(token.text) & set(names)):
                return True
    return False


def _is_condition(item: Shape) -> bool:
    if isinstance(item, Relation):
        return set(item.signs) != {"="}
    return isinstance(item, Joined)
