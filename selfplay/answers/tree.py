r"""Reads an expression from tokens into a tree, by a strict grammar; what is ambiguous is refused, not guessed.

Refused are, for example, "1/2x" (a half of x, or one over 2x?), "\sqrt12", "x2" and a number after a bracket.
Functions take what follows them up to the next sign or function: \sin 2x is \sin(2x).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from selfplay.answers.tokens import Token, Unreadable


@dataclass(frozen=True)
class Node:
    """An expression.

    kind: "number", "symbol", "constant", "sum", "product", "quotient", "power", "negative", "root", "call", "either"
      (plus or minus) or "mixed" (a whole number and a fraction).
    name: of a symbol, constant or function; of "either": "pm" or "mp". value: of a number.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction | None = None

    def walk(self) -> Iterator[Node]:
        """The node and all that is below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


TRIGONOMETRIC = frozenset("sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh coth".split()) | {
    "asinh",
    "acosh",
    "atanh",
    "sech",
    "csch",
}
LOGARITHMS = frozenset({"ln", "log", "lg", "logbase"})
FUNCTIONS = TRIGONOMETRIC | LOGARITHMS | {"exp"}
#: Functions that restate a problem instead of answering it, unless the right answer has such a one, too.
RESTATING = FUNCTIONS - {"exp"} | {"factorial", "binom"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell".split()
)
#: Functions and constants by their names in plain text.
_PLAIN_CALLS = FUNCTIONS | {"sqrt", "abs", "arcsin", "arccos", "arctan", "Abs"}
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_MOST_DEPTH = 12

IMAGINARY, E, PI, DEGREE = (Node("constant", name=name) for name in ("i", "e", "pi", "degree"))


def number(value: int | Fraction) -> Node:
    return Node("number", value=Fraction(value))


def expression(tokens: list[Token]) -> Node:
    """The tree of all the tokens. Raises `Unreadable`."""
    reader = _Reader(tokens)
    node = reader.sum()
    if (left := reader.peek()) is not None:
        raise Unreadable(f"{_shown(left)} is not expected there")
    return node


def spelled(word: str) -> list[str]:
    """A run of letters as names: known functions and constants whole, else letter by letter, if it may be a product."""
    if word in _PLAIN_CALLS or word == "pi":
        return [word]
    for name in sorted(_PLAIN_CALLS, key=len, reverse=True):  # "xsin", "piR"
        if len(name) > 2 and word.endswith(name) and word != name:
            return [*spelled(word[: -len(name)]), name]
    if len(word) > 4 or (len(word) > 2 and set(word.lower()) & set("aeiou") and not set(word) <= set("abcd")):
        raise Unreadable(f"the word {word[:40]!r} is not mathematics")
    return list(word)


def _shown(token: Token) -> str:
    return f"\\{token.text}" if token.kind == "command" else repr(token.text[:40])


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self.depth = _spelled_out(tokens), 0, 0
        self.bars = 0

    def peek(self, offset: int = 0) -> Token | None:
        place = self.at + offset
        return self.tokens[place] if place < len(self.tokens) else None

    def sign(self, *texts: str) -> str | None:
        """Takes the next token if it is one of these signs."""
        token = self.peek()
        if token is not None and token.kind == "sign" and token.text in texts:
            self.at += 1
            return token.text
        return None

    def command(self, *names: str) -> str | None:
        token = self.peek()
        if token is not None and token.kind == "command" and token.text in names:
            self.at += 1
            return token.text
        return None

    def need(self, text: str) -> None:
        if self.sign(text) is None:
            raise Unreadable(f"{text!r} is missing")

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise Unreadable(f"it is nested more than {_MOST_DEPTH} deep")
        terms = [self.term(self.leading())]
        while (operator := self.sign("+", "-") or self.command("pm", "mp")) is not None:
            terms.append(self.term(operator))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def leading(self) -> str:
        return self.sign("+", "-") or self.command("pm", "mp") or "+"

    def term(self, operator: str) -> Node:
        node = self.product()
        if operator == "+":
            return node
        return Node("negative", (node,)) if operator == "-" else Node("either", (node,), operator)

    def product(self) -> Node:
        node, divided = self.factor(), False
        while True:
            if self.sign("*") or self.command("cdot", "times"):
                node, divided = Node("product", (node, self.signed_factor())), False
            elif self.sign("/") or self.command("div"):
                node, divided = Node("quotient", (node, self.signed_factor())), True
            elif (token := self.peek()) is not None and self.begins(token):
                if token.kind == "number":
                    raise Unreadable(f"the number {token.text} follows without a sign before it")
                if divided:
                    raise Unreadable("what follows the / without brackets can be read in two ways")
                node = Node("product", (node, self.factor()))
            else:
                return node

    def signed_factor(self) -> Node:
        if self.sign("-"):
            return Node("negative", (self.factor(),))
        return self.factor()

    def begins(self, token: Token) -> bool:
        """Whether a factor may begin with this token."""
        if token.kind == "sign":
            return token.text in ("(", "[", "{") or (token.text == "|" and not self.bars)
        if token.kind == "command":
            return token.text in _OPENING_COMMANDS or token.text in GREEK
        return token.kind in ("number", "letters", "bold")

    def factor(self) -> Node:
        first = self.peek()
        node = self.atom()
        if first is not None and first.kind == "number":
            node = self.mixed(node, first)
        while True:
            if node.kind == "product" and node.parts[1] is DEGREE and self.degree_follows():
                raise Unreadable("it has two signs of degrees")
            if self.sign("!"):
                node = Node("call", (node,), "factorial")
            elif self.command("degree"):
                node = Node("product", (node, DEGREE))
            elif (token := self.peek()) is not None and token.kind == "sign" and token.text == "^":
                self.at += 1
                exponent = self.exponent()
                node = Node("product", (node, DEGREE)) if exponent is DEGREE else Node("power", (node, exponent))
                after = self.peek()
                if exponent is not DEGREE and after is not None and after.kind == "sign" and after.text == "^":
                    raise Unreadable("two exponents follow each other")
            else:
                return node

    def degree_follows(self) -> bool:
        token, after = self.peek(), self.peek(1)
        raised = token is not None and token.text == "^" and after is not None
        return any(one is not None and one.text in ("degree", "circ") for one in (token, after if raised else None))

    def mixed(self, node: Node, whole: Token) -> Node:
        """A whole number with a fraction after it: 1\\frac{1}{2} and 1 1/2."""
        if "." in whole.text:
            return node
        start = self.at
        token = self.peek()
        if token is not None and token.kind == "command" and token.text == "frac":
            part = self.atom()
            above, below = part.parts
            if above.kind != "number" or below.kind != "number":
                self.at = start
                return node
        elif token is not None and token.kind == "number":
            slash, last = self.peek(1), self.peek(2)
            if slash is None or last is None or slash.text != "/" or last.kind != "number":
                return node  # refused by `product`
            self.at += 3
            above, below = Node("number", value=token.value), Node("number", value=last.value)
        else:
            return node
        assert above.value is not None and below.value is not None
        if not (0 < above.value < below.value and above.value.denominator == below.value.denominator == 1):
            raise Unreadable("a fraction above 1 follows a whole number: it can be read in two ways")
        return Node("mixed", (node, Node("quotient", (above, below))))

    def exponent(self) -> Node:
        if self.command("circ", "degree"):
            return DEGREE
        if (token := self.peek()) is not None and token.kind == "sign" and token.text == "{":
            self.at += 1
            if self.command("circ", "degree"):
                self.need("}")
                return DEGREE
            node = self.sum()
            self.need("}")
            return node
        if self.sign("-"):
            return Node("negative", (self.atom(),))
        return self.atom()

    def atom(self) -> Node:
        token = self.peek()
        if token is None:
            raise Unreadable("it ends too soon")
        self.at += 1
        if token.kind == "number":
            return Node("number", value=token.value, name=token.text)
        if token.kind in ("letters", "bold"):
            return self.named(token)
        if token.kind == "command":
            return self.commanded(token)
        if token.kind == "sign" and token.text in _CLOSES:
            node = self.sum()
            self.need(_CLOSES[token.text])
            return node
        if token.kind == "sign" and token.text == "|":
            self.bars += 1
            node = self.sum()
            self.need("|")
            self.bars -= 1
            return Node("call", (node,), "abs")
        raise Unreadable(f"{_shown(token)} is not expected there")

    def named(self, token: Token) -> Node:
        name = token.text
        if name in ("sqrt", "abs", "Abs", "exp") or name in _PLAIN_CALLS:
            return self.called({"arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name))
        if name == "pi":
            return PI
        if token.kind == "bold":
            name = f"bold {name}"
        name += self.subscript()
        while self.sign("'"):
            name += "'"
        return {"i": IMAGINARY, "e": E}.get(name) or Node("symbol", name=name)

    def subscript(self) -> str:
        if not self.sign("_"):
            return ""
        if self.sign("{"):
            name = ""
            while not self.sign("}"):
                token = self.peek()
                if token is None or (token.kind == "sign" and token.text not in "+-,"):
                    raise Unreadable("a subscript does not end")
                name, self.at = name + token.text, self.at + 1
            return f"_{name}"
        token = self.peek()
        if token is None or token.kind not in ("letters", "number", "text", "command"):
            raise Unreadable("a subscript is missing")
        self.at += 1
        return f"_{token.text}"

    def commanded(self, token: Token) -> Node:
        name = token.text
        if name == "frac":
            above = self.argument()
            return _quotient(above, self.argument())
        if name == "binom":
            above = self.argument()
            return Node("call", (above, self.argument()), "binom")
        if name == "sqrt":
            return self.rooted()
        if name in FUNCTIONS:
            return self.called(name)
        if name == "pi":
            return PI
        if name in GREEK:
            return Node("symbol", name=f"\\{name}{self.subscript()}")
        for opened, closed, call in (("lfloor", "rfloor", "floor"), ("lceil", "rceil", "ceil")):
            if name == opened:
                node = self.sum()
                if not self.command(closed):
                    raise Unreadable(f"\\{closed} is missing")
                return Node("call", (node,), call)
        raise Unreadable(f"\\{name} cannot be read here")

    def argument(self) -> Node:
        """What a command takes: braces, one digit of a number, or one letter or command."""
        token = self.peek()
        if token is None:
            raise Unreadable("it ends too soon")
        if token.kind == "sign" and token.text == "{":
            self.at += 1
            node = self.sum()
            self.need("}")
            return node
        if token.kind == "number" and token.text.isdigit() and len(token.text) > 1:
            first, rest = token.text[0], token.text[1:]
            self.tokens[self.at : self.at + 1] = [
                Token("number", first, Fraction(first)),
                Token("number", rest, Fraction(rest)),
            ]
        elif token.kind not in ("number", "letters", "command"):
            raise Unreadable(f"{_shown(token)} is not expected there")
        return self.atom()

    def rooted(self) -> Node:
        index = None
        if self.sign("["):
            index = self.sum()
            self.need("]")
        token = self.peek()
        if token is not None and token.kind == "sign" and token.text == "(":
            self.at += 1
            inside = self.sum()
            self.need(")")
        else:
            inside = self.argument()
        return Node("root", (inside, index or number(2)))

    def called(self, name: str) -> Node:
        """A function: its power or base, then its argument."""
        if name in ("sqrt", "abs", "Abs"):
            self.need("(")
            node = self.sum()
            self.need(")")
            return Node("root", (node, number(2))) if name == "sqrt" else Node("call", (node,), "abs")
        base = power = None
        if name in ("log", "lg") and self.sign("_"):
            base = self.argument() if self.peek() and self.tokens[self.at].kind != "number" else self.atom()
        if self.sign("^"):
            power = self.exponent()
            if power == Node("negative", (Node("number", value=Fraction(1), name="1"),)):
                if name not in TRIGONOMETRIC or name.startswith("a"):
                    raise Unreadable(f"{name} to the power of -1 can be read in two ways")
                name, power = "a" + name, None
        inside = self.applied()
        node = Node("call", (inside, base), "logbase") if base is not None else Node("call", (inside,), name)
        return node if power is None else Node("power", (node, power))

    def applied(self) -> Node:
        """An argument: brackets alone, or a product up to the next sign, function or bracket."""
        token = self.peek()
        if token is not None and token.kind == "sign" and token.text in ("(", "[", "{", "|"):
            return self.atom()
        node = self.factor()
        while (token := self.peek()) is not None and (
            token.kind in ("letters", "bold")
            and token.text not in _PLAIN_CALLS
            or token.kind == "command"
            and (token.text in GREEK or token.text in ("pi", "frac", "sqrt"))
        ):
            node = Node("product", (node, self.factor()))
        return node


def _quotient(above: Node, below: Node) -> Node:
    """A fraction, or the derivative dy/dx, which is one name: its d and d do not cancel."""
    differentials = [next(part for part in side.walk() if not part.parts) for side in (above, below)]
    if any(first.kind != "symbol" or first.name != "d" for first in differentials):
        return Node("quotient", (above, below))
    if any(side.kind != "product" or [part.kind for part in side.parts] != ["symbol"] * 2 for side in (above, below)):
        raise Unreadable("a derivative of this form cannot be read")
    return Node("symbol", name=f"d{above.parts[1].name}/d{below.parts[1].name}")


_OPENING_COMMANDS = FUNCTIONS | {"frac", "sqrt", "binom", "pi", "lfloor", "lceil"}


def _spelled_out(tokens: list[Token]) -> list[Token]:
    found: list[Token] = []
    for place, token in enumerate(tokens):
        if token.kind == "text" and len(token.text.strip()) == 1 and token.text.strip().isalpha():
            found.append(Token("letters", token.text.strip(), None, token.spaced))
        elif token.kind == "letters" and len(token.text) > 1 and not (place and tokens[place - 1].text == "_"):
            names = spelled(token.text)
            found += [Token("letters", name, None, token.spaced and not at) for at, name in enumerate(names)]
        else:
            found.append(token)
    return found
