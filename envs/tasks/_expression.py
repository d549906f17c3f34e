"""Arithmetic expressions: trees, how they are written, and a strict parser that computes exactly.

    expression = product (("+" | "-") product)*
    product    = factor (("*" | "/") factor)*
    factor     = number | "(" expression ")"
    number     = "0" or one to four ASCII digits that do not begin with 0

There are no signs before a number, no spaces and no other characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from operator import add, mul, sub, truediv

#: A number, or an operation on two trees.
Tree = int | tuple[str, "Tree", "Tree"]
OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}
MOST_CHARACTERS = 200
MOST_DEPTH = 16
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")


def parse(text: str) -> tuple[Fraction, list[int]]:
    """The value of an expression and the numbers in it. Raises `ValueError` for any other text and says why."""
    if not 0 < len(text) <= MOST_CHARACTERS:
        raise ValueError(f"an expression has 1 to {MOST_CHARACTERS} characters")
    parser = _Parser(_TOKEN.findall(text))
    if sum(map(len, parser.tokens)) != len(text):
        raise ValueError("an expression has only digits, + - * / and parentheses")
    value = parser.chain("+-", 0)
    if parser.at < len(parser.tokens):
        raise ValueError(f"unexpected {parser.tokens[parser.at]}")
    return value, parser.numbers


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.numbers: list[int] = []

    def take(self) -> str:
        if self.at == len(self.tokens):
            raise ValueError("the expression is not complete")
        self.at += 1
        return self.tokens[self.at - 1]

    def chain(self, operations: str, depth: int) -> Fraction:
        """An expression ("+-") or a product ("*/")."""
        value = self.operand(operations, depth)
        while self.at < len(self.tokens) and self.tokens[self.at] in operations:
            operation = self.take()
            operand = self.operand(operations, depth)
            if operation == "/" and operand == 0:
                raise ValueError("division by zero")
            value = OPERATIONS[operation](value, operand)
        return value

    def operand(self, operations: str, depth: int) -> Fraction:
        return self.chain("*/", depth) if operations == "+-" else self.factor(depth)

    def factor(self, depth: int) -> Fraction:
        token = self.take()
        if token == "(":
            if depth == MOST_DEPTH:
                raise ValueError(f"parentheses are nested more than {MOST_DEPTH} deep")
            value = self.chain("+-", depth + 1)
            if self.take() != ")":
                raise ValueError("a parenthesis is not closed")
            return value
        if not _NUMBER.fullmatch(token):
            raise ValueError(f"{token[:10]} is not a number of one to four digits")
        self.numbers.append(int(token))
        return Fraction(int(token))


def value_of(tree: Tree) -> Fraction:
    """Raises `ZeroDivisionError` for a division by zero."""
    if isinstance(tree, int):
        return Fraction(tree)
    operation, left, right = tree
    return OPERATIONS[operation](value_of(left), value_of(right))


def ordered(tree: Tree) -> Tree:
    """The same, with the larger summand or factor first."""
    if isinstance(tree, int):
        return tree
    operation, left, right = tree[0], ordered(tree[1]), ordered(tree[2])
    if operation in "+*" and value_of(left) < value_of(right):
        left, right = right, left
    return operation, left, right


def written(tree: Tree, inside: bool = False) -> str:
    """With parentheses around every operation but the outermost."""
    if isinstance(tree, int):
        return str(tree)
    operation, left, right = tree
    text = f"{written(left, True)}{operation}{written(right, True)}"
    return f"({text})" if inside else text


def steps(tree: Tree) -> Iterator[str]:
    """Each operation with its result, as in "3*4=12"; operands before what they are operands of."""
    if not isinstance(tree, int):
        operation, left, right = tree
        yield from steps(left)
        yield from steps(right)
        yield f"{value_of(left)}{operation}{value_of(right)}={value_of(tree)}"
