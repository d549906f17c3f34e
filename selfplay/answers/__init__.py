"""How a verifier finds and compares the answer in a text: after ####, in a box, as a number, as mathematics.

For authors of tasks, who import it from `selfplay.contract`. Texts are parsed and never evaluated, and every call takes
well under a second, whatever the text is. `compare` says why two answers are the same or not; `undressed` takes off
what chat models put round an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfplay.answers.finding import after_hashes, boxed, final_box, loose_number, number, undressed

if TYPE_CHECKING:
    from selfplay.answers.comparison import Comparison

__all__ = [
    "after_hashes",
    "boxed",
    "compare",
    "final_box",
    "is_antiderivative",
    "loose_number",
    "number",
    "same_mathematics",
    "undressed",
]


def compare(answer: str, gold: str) -> Comparison:
    """Compares an answer in LaTeX with the right one, and says why they are the same or not; see `comparison`."""
    from selfplay.answers.comparison import compare as compared  # mpmath: not for those who need no mathematics

    return compared(answer, gold)


def same_mathematics(answer: str, gold: str) -> bool:
    """Whether two answers in LaTeX are the same; see `compare`."""
    return compare(answer, gold).same


def is_antiderivative(answer: str, integrand: str, variable: str) -> Comparison:
    """Whether the derivative of the answer is the integrand, both such as "x**2*exp(-x)/3"; see `antiderivatives`."""
    from selfplay.answers.antiderivatives import is_antiderivative as differentiated

    return differentiated(answer, integrand, variable)
