"""Antiderivatives in the notation of Python and sympy: differentiated by numbers, so that no parser evaluates them."""

from __future__ import annotations

from selfplay.answers import values
from selfplay.answers.comparison import Comparison
from selfplay.answers.tokens import Unreadable, tokens
from selfplay.answers.tree import E, Node, expression
from selfplay.answers.values import TooCostly


def is_antiderivative(answer: str, integrand: str, variable: str) -> Comparison:
    """Whether the derivative of the answer is the integrand, both such as "x**2*exp(-x)/3". Raises nothing.

    It has to be defined wherever the integrand is, at the points that are compared.
    """
    try:
        right = _read(integrand)
        given = _read(answer)
        unknown = set(values.symbols(given)) - {variable, "C", *values.symbols(right)}
        if unknown:
            return Comparison(False, f"it has names besides {variable} and C: {', '.join(sorted(unknown))[:60]}")
        same = values.antiderivative(given, right, variable)
    except (Unreadable, RecursionError) as error:
        return Comparison(False, f"it cannot be read: {error}")
    except TooCostly as error:
        return Comparison(False, f"it is too costly to check: {error}")
    return Comparison(same, f"its derivative is {'' if same else 'not '}the integrand")


def _read(text: str) -> Node:
    return _with_e(expression(tokens(text)))


def _with_e(node: Node) -> Node:
    """sympy's E is the base of the natural logarithm, and its log is natural."""
    if node.kind == "symbol" and node.name == "E":
        return E
    name = "ln" if node.kind == "call" and node.name == "log" else node.name
    return Node(node.kind, tuple(_with_e(part) for part in node.parts), name, node.value)
