"""What tasks share: a generator of random numbers for each problem, and how an answer is read.

The answer is what follows the last "#" of a text of at most `LIMIT` characters; anything may be written before it. An
answer is compared as text, character by character: no other digits, signs, spaces or leading zeros.
"""

from __future__ import annotations

import re
from random import Random

from selfplay.contract import Transcript, Verdict

#: Characters of a text; a longer one has no answer.
LIMIT = 8192
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


def generator(name: str, seed: int, difficulty: float) -> Random:
    """The same for a level written as 4 and as 4.0."""
    return Random(f"{name} {seed} {int(difficulty)}")


def final(text: str) -> str:
    """What follows the last "#"; "" where there is none or the text is too long."""
    return text.rpartition("#")[2] if len(text) <= LIMIT and "#" in text else ""


def number(text: str) -> int | None:
    """The number from 0 to 999999999 that is written, in ASCII digits without leading zeros; None if none is."""
    return int(text) if _NUMBER.fullmatch(text) else None


def of_length(rng: Random, digits: int) -> int:
    """A number of exactly so many digits; of one digit: 0 to 9."""
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def commuted(a: str, sign: str, b: str) -> str:
    """The key of a sum or a product of two numbers without leading zeros: the smaller first."""
    small, large = sorted((a, b), key=int)
    return f"{small}{sign}{large}"


def exactly(transcript: Transcript, wanted: str) -> Verdict:
    """Accepts the one answer that is `wanted`, a text that is not empty."""
    return Verdict.of(final(transcript.answer) == wanted, f"the answer is {wanted}")
