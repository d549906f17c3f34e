"""How a verifier finds and compares the answer in a text: after ####, in a box, as a number, as mathematics.

For authors of tasks. `same_mathematics` uses math-verify, which neither evaluates names nor runs code, but may take
long or recurse; call it only in tasks that are `isolated`, whose process is ended when the time is up. Its own time
limit uses a signal, fails outside the main thread, and is off here.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from selfplay.errors import UserError

#: Characters of a text that is read, and of an answer in it.
MOST_TEXT, MOST_ANSWER = 200_000, 400
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,15})(?:\.[0-9]{1,60})?")
_BOX = re.compile(r"\\boxed\s*\{")
_AFTER_BOX = re.compile(r"[\s.$*)\]\\]{0,20}")
_MOST_DEPTH = 12

_LITERAL = r"(?=[.0-9])(?:[0-9]{1,40}|[0-9]{1,3}(?:(?:,|\\,|\{,\}|\\!,|,\\!)[0-9]{3})+)?(?:\.[0-9]{1,40})?"
#: A number that is worked out, with what may stand around it: "x = ", a currency, a unit, a sign of degrees or percent.
_PLAIN = re.compile(
    r"(?:[A-Za-z]\s*=\s*)?\\?\$?\s*[+-]?\s*\\?\$?\s*"
    rf"(?:{_LITERAL}|\\[dt]?frac\s*\{{-?[0-9]{{1,40}}\}}\s*\{{[0-9]{{1,40}}\}}|[0-9]{{1,40}}/[0-9]{{1,40}})"
    r"\s*(?:\\?%|\^\\circ|\^\{\\circ\}|\\,|\\ |\\(?:text|mathrm|mbox)\s*\{[A-Za-z0-9 .,^/-]{0,40}\})*\s*\.?"
)
#: What restates a question instead of answering it, unless the right answer has it too.
_RESTATES = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim|limsup|liminf|min|max|gcd|lcm|det|binom|dbinom|tbinom|log_|bmod|pmod|mod|boxed)|!"
)
#: Powers of powers, and exponents of more than three digits.
_TOWER = re.compile(r"\^\s*(?:[0-9]\s*\^|\{[^{}]*\^|\{\s*-?[0-9]{4})")


def number(text: str) -> Fraction | None:
    """The number that the whole text is: ASCII digits, perhaps with commas between thousands; None if it is none."""
    return Fraction(Decimal(text.replace(",", ""))) if _NUMBER.fullmatch(text) else None


def after_hashes(text: str) -> str | None:
    """What follows the last "####", to the end, without white space around it; None where there is no "####"."""
    _, found, answer = text.rpartition("####")
    return answer.strip() if found and len(text) <= MOST_TEXT else None


def boxed(text: str) -> str | None:
    r"""What the last \boxed{…} of a text holds, braces balanced; None where there is none or it does not close."""
    if len(text) > MOST_TEXT:
        return None
    last = text.rfind("\\boxed")
    inside = _held(text, last) if last >= 0 else None
    return None if inside is None else inside[0].strip()


def final_box(text: str) -> str | None:
    r"""As `boxed`, and nothing but punctuation follows the box."""
    if len(text) > MOST_TEXT:
        return None
    last = text.rfind("\\boxed")
    inside = _held(text, last) if last >= 0 else None
    return inside[0].strip() if inside is not None and _AFTER_BOX.fullmatch(text, inside[1]) else None


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


def same_mathematics(answer: str, gold: str) -> bool:
    """Whether two answers in LaTeX, without dollar signs, are the same; symmetric as far as math-verify is.

    False for an answer that is too long, too deep or a tower of powers; that restates the question (a sum, an
    integral, a limit) where `gold` does not; and, where `gold` is a number, for one that is not worked out ("2-1").
    Raises what math-verify raises.
    """
    answer, gold = answer.strip().strip("$").strip(), gold.strip().strip("$").strip()
    if not answer or len(answer) > MOST_ANSWER or not answer.isprintable() or _depth(answer) > _MOST_DEPTH:
        return False
    if answer == gold:
        return True
    if _TOWER.search(answer) or (_RESTATES.search(answer) and not _RESTATES.search(gold)):
        return False
    if _PLAIN.fullmatch(gold) and not _PLAIN.fullmatch(answer):
        return False
    library = math_verify()
    mine, theirs = (_parsed(library, text) for text in (answer, gold))
    return bool(mine and theirs and library.verify(theirs, mine, timeout_seconds=None))


def _parsed(library: Any, text: str) -> list[Any]:
    from math_verify.parser import LatexExtractionConfig

    found: list[Any] = library.parse(
        f"\\boxed{{{text}}}",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found


def _depth(text: str) -> int:
    depth = most = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        most = max(most, depth)
    return most


@cache
def math_verify() -> Any:
    """The package, loaded. Raises `UserError` where it is missing."""
    try:
        import math_verify
        import math_verify.parser
    except ImportError:
        wanted = "pip install 'selfplay-factory[tasks]'"
        raise UserError(f"answers in mathematics need the package math-verify: {wanted}") from None
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it says at length that its time limit is off
    for one, other in (("\\frac{x^2}{2}", "\\sqrt{2}x"), ("3", "3.0"), ("(1,2)", "\\{1,2\\}")):  # its tables, once
        math_verify.verify(_parsed(math_verify, one), _parsed(math_verify, other), timeout_seconds=None)
    return math_verify
