r"""Tells whether two answers in mathematics are the same, and why not.

Both are read into shapes (`reading.py`), which are compared part by part; expressions by their values (`values.py`).
Conventions beyond those of reading:

- Values are exact: 0.333 is not 1/3. 50% is neither 50 nor 0.5.
- Where the right answer is a number, the answer is a number, too: not "2-1", "\sqrt{4}" or "3!". It restates the
  problem where it needs a trigonometric function, a logarithm, a factorial or a binomial coefficient and the right
  answer needs none. Where it is a single name, so is the answer. Otherwise the form does not matter: (x+1)(x-1) is
  x^2-1.
- A name may be missing: x = 3 and 3. Several named values need their names.
- Equations are the same up to a factor, and antiderivatives with "+C" up to a constant.
- A chain "a = b = c" is right only if all of its sides are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from selfplay.answers import values
from selfplay.answers.brackets import is_sign
from selfplay.answers.reading import shape
from selfplay.answers.regions import same_region
from selfplay.answers.shapes import (
    Collection,
    Group,
    Infinite,
    Joined,
    Labelled,
    Matrix,
    Quantity,
    Relation,
    Shape,
    Words,
    units_of,
)
from selfplay.answers.tokens import Unreadable, tokens
from selfplay.answers.tree import DEGREE, RESTATING, Node
from selfplay.answers.values import TooCostly

#: Characters of an answer; one to a longer right answer may be twice as long as that.
MOST_ANSWER = 400


@dataclass(frozen=True)
class Comparison:
    """Whether two answers are the same, and the reason in one phrase."""

    same: bool
    reason: str


def compare(answer: str, gold: str) -> Comparison:
    """Compares an answer in LaTeX with the right one. It evaluates no text, takes well under a second, raises nothing.

    Where `gold` cannot be read as mathematics, only the same text, but for spacing and \\text, is the same answer.
    """
    if len(answer) > max(MOST_ANSWER, 2 * len(gold)):
        return Comparison(False, f"it is longer than {max(MOST_ANSWER, 2 * len(gold))} characters")
    answer, gold = _bare(answer), _bare(gold)
    if not answer:
        return Comparison(False, "it is empty")
    if not answer.isprintable():
        return Comparison(False, "it has characters that cannot be seen")
    if answer == gold or _spelling(answer) == _spelling(gold):
        return Comparison(True, "it is the same text")
    try:
        right = shape(gold, None)
    except (Unreadable, RecursionError) as error:
        if _written(answer) == _written(gold):
            return Comparison(True, "it is the same text")
        return Comparison(
            False, f"it is not the text of the right answer, which cannot be read as mathematics: {error}"
        )
    try:
        why = _differ(right, shape(answer, units_of(right)))
    except Unreadable as error:
        return Comparison(False, f"it cannot be read as mathematics: {error}")
    except TooCostly as error:
        return Comparison(False, f"it is too costly to check: {error}")
    return Comparison(not why, why or "it has the same value")


def _bare(text: str) -> str:
    text = text.strip()
    for opens, closes in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opens) and text.endswith(closes) and len(text) >= 2 * len(opens):
            inside = text[len(opens) : -len(closes)]
            if "$" not in inside.replace(r"\$", ""):
                text = inside.strip()
    return text


def _spelling(text: str) -> tuple[tuple[str, str], ...] | str:
    """The text as tokens, so that spacing and sizes do not count."""
    try:
        found = tokens(text)
    except Unreadable:
        return text
    return tuple((token.kind, " ".join(token.text.split()) if token.kind == "text" else token.text) for token in found)


def _written(text: str) -> list[tuple[str, str]] | str:
    """As `_spelling`, where neither \\text{…} nor braces round one exponent or index count."""
    try:
        found = [part for one in tokens(text) for part in (tokens(one.text) if one.kind == "text" else (one,))]
    except Unreadable:
        return text
    if found and is_sign(found[-1], "."):
        found.pop()
    for at in range(len(found) - 3, 0, -1):
        if is_sign(found[at], "{") and is_sign(found[at + 2], "}") and is_sign(found[at - 1], "^", "_"):
            found[at : at + 3] = [found[at + 1]]
    return [(token.kind, token.text) for token in found]


def _differ(gold: Shape, answer: Shape) -> str:
    """Why the answer is another one; "" where it is the same."""
    if isinstance(gold, Labelled) or isinstance(answer, Labelled):
        return _named(gold, answer)
    if isinstance(answer, Relation) and set(answer.signs) == {"="} and not isinstance(gold, Relation):
        return _chained(gold, answer)
    gold, answer = _spread(gold), _spread(answer)
    if isinstance(gold, Group) and isinstance(answer, Group):
        if (gold.opens, gold.closes) != (answer.opens, answer.closes):
            return f"its brackets are {answer.opens}{answer.closes}, not {gold.opens}{gold.closes}"
        return _in_order(gold.items, answer.items)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _related(gold, answer)
    sets = [_is_set(found) or (isinstance(found, Collection) and found.kind == "set") for found in (gold, answer)]
    if all(sets) and not (isinstance(gold, Collection) and isinstance(answer, Collection)):
        if all(map(_plain, _numbers(gold))) and not all(map(_plain, _numbers(answer))):
            return "an end of it is not worked out"
        same = same_region(gold, answer)
        return "" if same else "it is another set of numbers" if same is False else "its members cannot be told"
    if isinstance(gold, Collection) and isinstance(answer, Collection):
        return _collected(gold, answer)
    if isinstance(gold, Group) and isinstance(answer, Collection) and _all_named(answer):
        return _differ(gold, _by_name(answer))
    if type(gold) is not type(answer):
        return f"it is {_KINDS[type(answer)]}, and the right answer is {_KINDS[type(gold)]}"
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if len(gold.rows) != len(answer.rows) or len(gold.rows[0]) != len(answer.rows[0]):
            return "the matrix has another size"
        return _in_order(sum(gold.rows, ()), sum(answer.rows, ()))
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return _valued(gold, answer)
    return "" if gold == answer else "it is another text" if isinstance(gold, Words) else "it has another sign"


_KINDS = {
    Quantity: "a value", Infinite: "infinity", Words: "text, a ratio or a number with a base", Group: "in brackets",
    Collection: "several values", Labelled: "a named value", Relation: "an equation or inequality",
    Joined: "a set or condition", Matrix: "a matrix",
}  # fmt: skip


def _named(gold: Shape, answer: Shape) -> str:
    if isinstance(gold, Labelled) and isinstance(answer, Labelled):
        if _same_names(gold.names, answer.names):
            return _differ(gold.body, answer.body)
        if len(gold.names) > 1 and sorted(gold.names) == sorted(answer.names):
            return _collected(_one_by_one(gold), _one_by_one(answer))
        return f"it gives {', '.join(answer.names)}, and {', '.join(gold.names)} is asked for"
    if isinstance(gold, Labelled):
        if isinstance(answer, Collection) and len(gold.names) > 1 and _all_named(answer):
            return _collected(_one_by_one(gold), answer)
        if isinstance(answer, Relation) and len(answer.signs) == 1 and len(gold.names) == 1:
            body = gold.body
            if isinstance(body, Quantity) and values.symbols(body.node):
                return _related(_as_relation(gold), answer)
            if answer.signs == ("=",):
                return "its equation is not solved"
        return _differ(gold.body, answer)
    assert isinstance(answer, Labelled)
    if isinstance(gold, Collection) and _all_named(gold):
        return _collected(gold, _one_by_one(answer)) if len(answer.names) > 1 else "values are missing"
    if isinstance(gold, Relation) and set(gold.signs) == {"="}:
        return _related(gold, _as_relation(answer)) if len(answer.names) == 1 else "it is no equation"
    if list(answer.names) != sorted(answer.names):
        return "its names are in an order that the right answer does not state"
    if isinstance(gold, Quantity) and values.symbols(gold.node) == list(answer.names):
        return "it names what is asked for differently"
    return _differ(gold, answer.body)


def _same_names(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return one == other or {one, other} == {("y",), ("f(x)",)}


def _all_named(found: Collection) -> bool:
    return all(isinstance(item, Labelled) for item in found.items)


def _one_by_one(found: Labelled) -> Collection:
    """(x,y) = (1,2) as x = 1, y = 2. Raises `Unreadable`."""
    if not isinstance(found.body, Group) or len(found.body.items) != len(found.names):
        raise Unreadable("its names and values do not match")
    pairs = zip(found.names, found.body.items, strict=True)
    return Collection("list", tuple(Labelled((name,), item) for name, item in pairs))


def _by_name(found: Collection) -> Shape:
    """x = 1, y = 2 as (1,2): in the order of the names."""
    named = {item.names[0]: item.body for item in found.items if isinstance(item, Labelled) and len(item.names) == 1}
    if len(named) != len(found.items):
        raise Unreadable("a name has two values")
    return Group("(", tuple(named[name] for name in sorted(named)), ")")


def _as_relation(found: Labelled) -> Relation:
    return Relation((Quantity(Node("symbol", name=found.names[0])), found.body), ("=",))


def _chained(gold: Shape, answer: Relation) -> str:
    """A chain of equal sides: each has the value, the last in a form that is accepted."""
    for side in answer.sides[:-1]:
        if isinstance(gold, Quantity) and isinstance(side, Quantity):
            if side.unit not in ("", gold.unit) or not values.same(gold.node, side.node):
                return "a side of its equation is not the right answer"
        elif (why := _differ(gold, side)) != "":
            return why
    return _differ(gold, answer.sides[-1])


def _spread(found: Shape) -> Shape:
    """Values with plus-or-minus as a list of values, and lists of such as one."""
    if isinstance(found, Quantity) and any(node.kind == "either" for node in found.node.walk()):
        return Collection("list", tuple(Quantity(node, found.unit) for node in _either(found.node)))
    if isinstance(found, Collection):
        items = [_spread(item) for item in found.items]
        if any(isinstance(item, Collection) and item.kind == "list" for item in items):
            flat = [part for item in items for part in (item.items if _is_list(item) else (item,))]  # type: ignore[union-attr]
            return Collection(found.kind, tuple(flat))
    return found


def _is_list(found: Shape) -> bool:
    return isinstance(found, Collection) and found.kind == "list"


def _either(node: Node) -> list[Node]:
    """Its values with plus and with minus. With \\mp all signs change together; without, each by itself."""
    signs = [part for part in node.walk() if part.kind == "either"]
    if len(signs) > values.MOST_EITHER:
        raise TooCostly(f"more than {values.MOST_EITHER} signs of plus or minus")
    if any(part.name == "mp" for part in signs):
        return [_signed(node, iter([upper] * len(signs))) for upper in (True, False)]
    choices = [[bool(number >> place & 1) for place in range(len(signs))] for number in range(2 ** len(signs))]
    return [_signed(node, iter(choice)) for choice in choices]


def _signed(node: Node, upper: object) -> Node:
    if node.kind == "either":
        plus = next(upper) == (node.name == "pm")  # type: ignore[call-overload]
        inside = _signed(node.parts[0], upper)
        return inside if plus else Node("negative", (inside,))
    return Node(node.kind, tuple(_signed(part, upper) for part in node.parts), node.name, node.value)


def _is_set(found: Shape) -> bool:
    """Whether it may be read as a set of real numbers."""
    if isinstance(found, Group):
        return len(found.items) == 2 and found.opens in "([" and found.closes in ")]"
    if isinstance(found, Relation):
        return set(found.signs) != {"="}
    return isinstance(found, Joined)


def _numbers(found: Shape) -> list[Node]:
    """The values without variables in a set or condition."""
    if isinstance(found, Quantity):
        return [found.node] if not values.symbols(found.node) else []
    parts: Sequence[Shape] = ()
    if isinstance(found, Group | Collection):
        parts = found.items
    elif isinstance(found, Relation):
        parts = found.sides
    elif isinstance(found, Joined):
        parts = found.parts
    return [node for part in parts for node in _numbers(part)]


def _related(gold: Relation, answer: Relation) -> str:
    if set(gold.signs) == {"="} or set(answer.signs) == {"="}:
        if len(gold.signs) != 1 or gold.signs != answer.signs:
            return "it is another relation"
        same = _balance(gold, answer, "factor")
        return "" if same else "it is another equation"
    if all(map(_plain, _numbers(gold))) and not all(map(_plain, _numbers(answer))):
        return "an end of it is not worked out"
    same_set = same_region(gold, answer)
    if same_set is None and len(gold.signs) == len(answer.signs) == 1:
        strict = {"<": "<", ">": "<", "le": "le", "ge": "le", "ne": "ne"}
        if strict[gold.signs[0]] == strict[answer.signs[0]]:
            same_set = _balance(gold, answer, "factor" if gold.signs == ("ne",) else "positive")
    return "" if same_set else "it is another condition"


def _balance(gold: Relation, answer: Relation, up_to: str) -> bool:
    """Whether the differences of the sides are the same up to a factor."""
    nodes = []
    for found in (gold, answer):
        left, right = found.sides if found.signs[0] not in (">", "ge") else found.sides[::-1]
        if not isinstance(left, Quantity) or not isinstance(right, Quantity) or left.unit or right.unit:
            return False
        nodes.append(Node("sum", (left.node, Node("negative", (right.node,)))))
    return bool(values.symbols(nodes[0])) and values.same(nodes[0], nodes[1], up_to)


def _in_order(gold: Sequence[Shape], answer: Sequence[Shape]) -> str:
    if len(gold) != len(answer):
        return f"it has {len(answer)} items, not {len(gold)}"
    return next((why for one, other in zip(gold, answer, strict=True) if (why := _differ(one, other))), "")


def _collected(gold: Collection, answer: Collection) -> str:
    """Every item has its own counterpart; in sets, items that are the same count once."""
    mine, theirs = list(answer.items), list(gold.items)
    if any(isinstance(item, Labelled) for item in theirs) != any(isinstance(item, Labelled) for item in mine):
        return "its values have names, or lack the names that the right answer has"
    if "set" in (gold.kind, answer.kind):
        mine, theirs = _distinct(mine), _distinct(theirs)
    if len(mine) != len(theirs):
        return f"it has {len(mine)} values, not {len(theirs)}"
    for item in theirs:
        place = next((place for place, other in enumerate(mine) if not _differ(item, other)), None)
        if place is None:
            return "a value is missing or not worked out"
        del mine[place]
    return ""


def _distinct(items: list[Shape]) -> list[Shape]:
    found: list[Shape] = []
    for item in items:
        if not any(_equal_values(item, other) for other in found):
            found.append(item)
    return found


def _equal_values(one: Shape, other: Shape) -> bool:
    if isinstance(one, Quantity) and isinstance(other, Quantity):
        return one.unit == other.unit and values.same(one.node, other.node)
    return one == other


def _valued(gold: Quantity, answer: Quantity) -> str:
    angle = "degree" in (gold.unit, answer.unit) and "" in (gold.unit, answer.unit)
    parts = list(answer.node.walk())
    radians = angle and DEGREE not in parts and not {node.kind for node in parts} - _WORKED_OUT_ANGLE
    if gold.unit != answer.unit and ("%" in (gold.unit, answer.unit) or "" not in (gold.unit, answer.unit)):
        return f"its unit is {answer.unit or 'missing'}, not {gold.unit or 'expected'}"
    if _plain(gold.node) and not _plain(answer.node) and not radians:
        return "it is not worked out"
    if gold.node.kind == "symbol" and answer.node.kind not in ("symbol", "number"):
        return "it is an expression, and the right answer is a name"
    used = {node.name for node in answer.node.walk() if node.kind == "call"} & RESTATING
    if used and not {node.name for node in gold.node.walk() if node.kind == "call"} & RESTATING:
        return f"it restates the problem: {', '.join(sorted(used))} is not worked out"
    if values.same(gold.node, answer.node):
        return "" if not _plain(gold.node) or _plain(answer.node) else "it is not worked out"
    if angle and values.same(_radians(gold), _radians(answer)):
        return ""
    mine, theirs = (_family(found.node) for found in (answer, gold))
    if mine is not None and theirs is not None:
        return "" if values.same(theirs, mine, "constant") else "it is the antiderivative of something else"
    return "it has another value"


#: What an angle is made of that is worked out: 3\\pi/4, but no sum.
_WORKED_OUT_ANGLE = {"number", "constant", "product", "quotient", "negative"}


def _radians(found: Quantity) -> Node:
    return Node("product", (found.node, DEGREE)) if found.unit == "degree" else found.node


def _family(node: Node) -> Node | None:
    """Without the constant of integration that is added at the end; None where there is none."""
    if node.kind != "sum":
        return None
    constants = [part for part in node.parts if _bare_name(part) in ("C", "c", "K", "k", "C_1", "C_0")]
    if len(constants) != 1:
        return None
    rest = tuple(part for part in node.parts if part is not constants[0])
    inside = Node("sum", rest)
    return None if _bare_name(constants[0]) in values.symbols(inside) or not values.symbols(inside) else inside


def _bare_name(node: Node) -> str:
    """Of a symbol, with or without a minus; "" of anything else."""
    symbol = node.parts[0] if node.kind == "negative" else node
    return symbol.name if symbol.kind == "symbol" else ""


def _plain(node: Node) -> bool:
    """A number that is worked out: digits, a fraction of them, a mixed number, or digits times a power of ten."""
    if node.kind in ("negative",):
        return _plain(node.parts[0])
    if node.kind == "quotient":
        return all(part.kind == "number" or _is_minus(part) for part in node.parts)
    if node.kind == "product":
        return node.parts[0].kind == "number" and _ten(node.parts[1])
    return node.kind in ("number", "mixed")


def _is_minus(node: Node) -> bool:
    return node.kind == "negative" and node.parts[0].kind == "number"


def _ten(node: Node) -> bool:
    if node.kind != "power" or node.parts[0].value != Fraction(10):
        return False
    return node.parts[1].kind == "number" or _is_minus(node.parts[1])
