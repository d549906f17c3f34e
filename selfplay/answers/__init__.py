"""How a verifier finds and compares the answer in a text: after ####, in a box, as a number, as mathematics.

For authors of tasks, who get it from `selfplay.contract`. It parses and never evaluates a text; every call takes well
under a second, whatever the text is. `compare` says why two answers are the same or not; `undressed` takes off what
chat models put round an answer.
"""

from __future__ import annotations

from selfplay.answers.antiderivatives import is_antiderivative
from selfplay.answers.compare import Comparison, compare, same_mathematics
from selfplay.answers.finding import after_hashes, boxed, final_box, loose_number, number, undressed

__all__ = [
    "Comparison",
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
