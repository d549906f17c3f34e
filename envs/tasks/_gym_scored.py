"""Answers to problems of reasoning-gym that only its own scorer can judge, each behind a grammar of its own.

The scorers of two integrals and a product hand their text to sympy's parser, which evaluates; so what they are given is
read before: nothing but numbers, the problem's variables, a few functions by name and + - * / ** ( ). There is no other
name, no dot but in a number, no quote, bracket, comma or underscore, so that there is nothing which could run. The
other scorers do not evaluate, but find what they look for anywhere in a text; the grammar leaves nothing else in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(?:([0-9]{1,40}(?:\.[0-9]{1,9})?)|([A-Za-z]{1,6})|(\*\*|[-+*/()]))")
_CALLED = frozenset(
    "exp log sqrt sin cos tan sec csc cot asin acos atan sinh cosh tanh asinh acosh atanh Abs".split()
)
_MOST_TOKENS = 250
_MOST_DEPTH = 12


@dataclass(frozen=True)
class Scored:
    """admits: (answer, metadata) -> whether the scorer may see the answer. needs: the metadata that it reads."""

    admits: Callable[[str, Mapping[str, Any]], bool]
    needs: tuple[str, ...]


def _grammar(pattern: str, most: int = 4000) -> Callable[[str, Mapping[str, Any]], bool]:
    compiled = re.compile(pattern)
    return lambda answer, about: len(answer) <= most and compiled.fullmatch(answer) is not None


def _expression(answer: str, names: frozenset[str]) -> bool:
    """Whether it is an expression of numbers, operators and these names, and cannot grow beyond all bounds."""
    tokens: list[str] = []
    at = 0
    answer = answer.rstrip()
    while at < len(answer) and len(tokens) <= _MOST_TOKENS:
        found = _TOKEN.match(answer, at)
        if found is None or (found[2] is not None and found[2] not in names):
            return False
        tokens.append(found[1] or found[2] or found[3])
        at = found.end()
    return 0 < len(tokens) <= _MOST_TOKENS and _bounded(tokens)


def _bounded(tokens: list[str]) -> bool:
    """Parentheses close and are not too deep; operands stand between operators; numbers in powers are small."""
    depth = 0
    powers: list[int] = []  # how deep the exponents stand that we are in
    for before, token, after in zip(["(", *tokens], tokens, [*tokens[1:], ")"], strict=False):
        depth += (token == "(") - (token == ")")
        if not 0 <= depth <= _MOST_DEPTH:
            return False
        if _ends(before) and (token[0].isalnum() or (token == "(" and not before[0].isalpha())):
            return False  # "2 3", "2(", ") 3"
        if token == "(" and before[0].isalpha() and before not in _CALLED:
            return False  # what is no function is not called
        powers = [one for one in powers if one < depth or (one == depth and token not in "+-*/)")]
        if token == "**":
            if powers or (after[0].isdigit() and (len(after) > 2 or "." in after)):
                return False  # no powers in an exponent, no exponent of three digits
            powers.append(depth)
    return depth == 0


def _ends(token: str) -> bool:
    """Whether an operand may end in it."""
    return token == ")" or token[0].isalnum()


def _antiderivative(answer: str, about: Mapping[str, Any]) -> bool:
    return _expression(answer, _CALLED | {"pi", "E", "C", about["variable"]})


_MOVE = r"\"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])\""
_HOP = r"\"[wB],[A-Z][0-9],[A-Z][0-9]\""
_COLOUR = r"\"[0-9]{1,3}\"\s*:\s*[0-9]{1,3}"
_TURN = r"[LRUDFB]w?'?"

SCORED: dict[str, Scored] = {
    "cryptarithm": Scored(
        _grammar(r"[A-Z]\s*=\s*[0-9](?:\s*,\s*[A-Z]\s*=\s*[0-9]){0,9}", 200),
        ("words_letters", "result_letters", "allow_leading_zero"),
    ),
    "graph_color": Scored(_grammar(rf"\{{\s*{_COLOUR}(?:\s*,\s*{_COLOUR}){{0,200}}\s*\}}"), ("puzzle",)),
    "intermediate_integration": Scored(_antiderivative, ("variable", "integrand")),
    "jugs": Scored(_grammar(rf"\[\s*{_MOVE}(?:\s*,\s*{_MOVE}){{0,200}}\s*\]"), ("puzzle",)),
    "kakurasu": Scored(
        _grammar(r"[01](?: [01])*(?:\n[01](?: [01])*)*", 500), ("row_sums", "col_sums", "n_rows", "n_cols")
    ),
    "knight_swap": Scored(
        _grammar(rf"[Nn]o|\[\s*{_HOP}(?:\s*,\s*{_HOP}){{0,200}}\s*\]"),
        ("is_possible", "board", "pieces", "start_turn", "solution"),
    ),
    "knights_knaves": Scored(_grammar(r"[A-Za-z]+(?:[ ,]+[A-Za-z]+)*\.?", 1000), ()),
    "quantum_lock": Scored(
        _grammar(r"[A-C](?:\s*(?:→|->)\s*[A-C]){0,99}", 800),
        ("buttons", "initial_value", "initial_state", "target_value"),
    ),
    "rubiks_cube": Scored(_grammar(rf"{_TURN}(?: +{_TURN}){{0,999}}"), ("cube_size", "scramble_moves")),
    "shortest_path": Scored(
        _grammar(r"infeasible|(?:up|down|left|right)(?: (?:up|down|left|right)){0,500}"), ("matrix",)
    ),
    "simple_integration": Scored(_antiderivative, ("variable", "integrand")),
    "sokoban": Scored(_grammar(r"[LRUD]{1,2000}"), ("gamestr",)),
    "tower_of_hanoi": Scored(
        _grammar(
            r"Move disk [0-9]{1,2} from Peg [0-9]{1,2} to Peg [0-9]{1,2}"
            r"(?:\s*\nMove disk [0-9]{1,2} from Peg [0-9]{1,2} to Peg [0-9]{1,2})*",
            50_000,
        ),
        ("num_disks", "num_pegs", "start_peg", "target_peg", "solution_length"),
    ),
    "word_ladder": Scored(_grammar(r"[A-Z]{2,12}(?:,[A-Z]{2,12}){1,99}"), ("start_word", "end_word")),
}
