"""How an answer to a problem of reasoning-gym is judged without running it: readers of text, none of which evaluates.

Every check is given the answer (without white space around it), the data set's own answer, and what it needs of the
problem's metadata; it says whether the answer is right. A text that does not follow the grammar is wrong.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from envs.tasks import _expression
from selfplay.contract import answers

#: (answer, the data set's own answer, metadata) -> whether it is right.
Check = Callable[[str, str, Mapping[str, Any]], bool]
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,15})(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,2})?")
_RATIO = re.compile(r"([+-]?[0-9]{1,60})/([0-9]{1,60})")
_COMPLEX = re.compile(r"(?:([+-]?[0-9.]{1,40})(?![0-9.i]))?(?:([+-]?[0-9.]{0,40})i)?")
#: One statement of knights_knaves: who is what.
_ROLE = re.compile(r"([a-z]+)(?: is)?(?: an?)? ([a-z]+)")
_LATEX_RATIO = re.compile(r"\$?\\d?frac\{([0-9]{1,60})\}\{([0-9]{1,60})\}\$?")


def number(text: str) -> Fraction | None:
    """The number that is written: ASCII digits, thousands by commas, an exponent of two digits; None if none is."""
    return Fraction(Decimal(text.replace(",", ""))) if _NUMBER.fullmatch(text) else None


def text(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """Character by character."""
    return answer == gold


def caseless(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """Capital letters do not count, nor does white space but between words."""
    return _spaced(answer.lower()) == _spaced(gold.lower())


def spaceless(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """White space does not count but between words and numbers: "4 21" is not 421."""
    return _spaced(answer) == _spaced(gold)


def degrees(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A number or a point; the sign of degrees may be left out."""
    return spaceless(answer.removesuffix("\u00b0"), gold.removesuffix("\u00b0"), about)


def numeric(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The same number, however written; or the same text, where the answer is no number."""
    right = number(gold)
    return answer == gold if right is None else number(answer) == right


def close(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A number or a ratio, up to 1e-6, which is how the data set rounds."""
    ratio = _RATIO.fullmatch(answer)
    given = Fraction(int(ratio[1]), int(ratio[2])) if ratio and int(ratio[2]) else number(answer)
    right = number(gold)
    return given is not None and right is not None and abs(given - right) < Fraction(1, 10**6)


def three_figures(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The same number, rounded to three significant figures."""
    given, right = number(answer), number(gold)
    return given is not None and right is not None and f"{float(given):.2e}" == f"{float(right):.2e}"


def grid(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The same rows of the same words; how far apart they stand does not count."""
    return _rows(answer) == _rows(gold)


def rounded_grid(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """Rows of numbers, each correct to two decimal places."""
    given, right = _rows(answer), _rows(gold)
    if [len(row) for row in given] != [len(row) for row in right]:
        return False
    pairs = [(number(a), number(b)) for x, y in zip(given, right, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a is not None and b is not None and abs(a - b) <= Fraction(501, 100000) for a, b in pairs)


def numbers(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The same numbers, separated by commas, in any order."""
    given, right = ([number(part.strip()) for part in one.split(",")] for one in (answer, gold))
    return None not in given and Counter(given) == Counter(right)


def listed_numbers(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A list of numbers, each with quotes or without, in the same order."""
    given, right = _items(answer), _items(gold)
    return given is not None and given == right


def plain_json(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The same value in JSON; or the same text, where the data set's answer is no JSON."""
    try:
        right = _canonical(gold)
    except (ValueError, RecursionError):
        return answer == gold
    return _or_none(answer) == right


def groups(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A list of lists of texts in JSON; neither the order of the lists nor that within them counts."""
    return _sorted_lists(answer, True) == _sorted_lists(gold, True)


def partitions(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A list of lists of texts in JSON; the order of the lists does not count."""
    return _sorted_lists(answer, False) == _sorted_lists(gold, False)


def board(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """One of the boards that are right."""
    return _rows(answer) in [_rows(one) for one in about["valid_answers"]]


def fraction(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The simplified fraction, as a/b or in LaTeX."""
    found = re.fullmatch(r"\$?([0-9]{1,60})/([0-9]{1,60})\$?", answer) or _LATEX_RATIO.fullmatch(answer)
    if not found:
        return False
    return (int(found[1]), int(found[2])) == (about["simplified_numerator"], about["simplified_denominator"])


def complex_number(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """a + bi; the signs and decimals of zero do not count."""
    given = _complex(answer)
    return given is not None and given == _complex(gold)


def countdown(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """An expression of exactly the given numbers that has the target as its value."""
    return _uses(answer, about["numbers"], about["target"])


def puzzle24(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """An expression of exactly the four given numbers that has the value 24; the data set's scorer takes any four."""
    return _uses(answer, about["numbers"], 24)


def palindrome(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """A palindrome of all the letters."""
    given = answer.lower()
    return given == given[::-1] and sorted(given) == sorted(about["letters"])


def antiderivative(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """An expression whose derivative is the integrand, at points that nobody can know before."""
    if "\n" in answer:
        return False
    return answers.is_antiderivative(answer, str(about["integrand"]), str(about["variable"])).same


def survo(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """The matrix with each given number in one empty cell, so that all sums are right; there may be several."""
    given = [[number(cell) for cell in row] for row in _rows(answer)]
    puzzle: list[list[int]] = about["puzzle"]
    if [len(row) for row in given] != [len(row) for row in puzzle]:
        return False
    pairs = [pair for mine, theirs in zip(given, puzzle, strict=True) for pair in zip(mine, theirs, strict=True)]
    if any(cell != fixed for cell, fixed in pairs if fixed):
        return False
    if Counter(cell for cell, fixed in pairs if not fixed) != Counter(about["candidate_numbers"]):
        return False
    lines = [*given, *zip(*given, strict=True)]
    return all(sum(cell or 0 for cell in line[:-1]) == line[-1] for line in lines)


def roles(answer: str, gold: str, about: Mapping[str, Any]) -> bool:
    """Who is what, each once, in any order, and nothing besides: "Ann is a knight, and Bo is a knave."."""
    given = _roles(answer)
    return given is not None and given == _roles(gold)


def _roles(written: str) -> dict[str, str] | None:
    plain = " ".join(written.lower().removesuffix(".").replace(",", " , ").split())
    found = [_ROLE.fullmatch(part.strip()) for part in re.split(r" , and | , | and ", plain)]
    pairs = [(one[1], one[2]) for one in found if one is not None]
    return dict(pairs) if len(pairs) == len(found) == len({name for name, _ in pairs}) else None


def _uses(answer: str, given: list[int], target: int) -> bool:
    if re.search(r"[0-9]\s+[0-9]", answer) or len(answer) > _expression.MOST_CHARACTERS:
        return False
    # A sign stands at the beginning only, or after a parenthesis: there "-a" is "0-a".
    plain, signs = re.subn(r"(^|\()-", r"\g<1>0-", "".join(answer.split()))
    try:
        value, used = _expression.parse(plain)
    except ValueError:
        return False
    return value == target and Counter(used) == Counter([*given, *[0] * signs])


def _spaced(written: str) -> str:
    """Without white space, but for one space between two letters or digits, or a digit and a decimal point."""
    return re.sub(r"(?<![\w.]) | (?![\w.])", "", " ".join(written.split()))


def _rows(written: str) -> list[list[str]]:
    return [row.split() for row in written.strip().splitlines() if row.strip()]


def _items(written: str) -> list[Fraction] | None:
    inner = re.fullmatch(r"\[(.*)\]", written.strip(), re.DOTALL)
    if inner is None:
        return None
    found = [number(part.strip().strip("'\"")) for part in inner[1].split(",")] if inner[1].strip() else []
    return None if None in found else [one for one in found if one is not None]


def _canonical(written: str) -> str:
    """The JSON with sorted keys and without spaces. Raises `ValueError` for NaN, infinities and what is no JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.dumps(json.loads(written, parse_constant=refuse), sort_keys=True)


def _or_none(written: str) -> str | None:
    try:
        return _canonical(written)
    except (ValueError, RecursionError):
        return None


def _sorted_lists(written: str, within: bool) -> list[list[str]] | str:
    """The lists of texts in an order of their own; a text that equals no list where there are none."""
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(found, list) or not all(isinstance(one, list) for one in found):
        return "no list of lists"
    if not all(isinstance(word, str) for one in found for word in one):
        return "no texts"
    return sorted(sorted(one) if within else one for one in found)


def _complex(written: str) -> tuple[Fraction, Fraction] | None:
    plain = _spaced(written)
    found = _COMPLEX.fullmatch(plain)
    if not plain or not found:
        return None
    real, imaginary = found[1] or "0", found[2]
    if imaginary is None:
        imaginary = "0"
    elif imaginary in ("", "+", "-"):
        imaginary += "1"
    parts = number(real), number(imaginary)
    return None if parts[0] is None or parts[1] is None else (parts[0], parts[1])
