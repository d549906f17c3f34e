"""Answers to problems of reasoning-gym that only its own scorer can judge, each behind a grammar of its own.

None of these scorers evaluates a text, but they find what they look for anywhere in it; the grammar leaves nothing else
in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scored:
    """admits: (answer, metadata) -> whether the scorer may see the answer. needs: the metadata that it reads."""

    admits: Callable[[str, Mapping[str, Any]], bool]
    needs: tuple[str, ...]


def _grammar(pattern: str, most: int = 4000) -> Callable[[str, Mapping[str, Any]], bool]:
    compiled = re.compile(pattern)
    return lambda answer, about: len(answer) <= most and compiled.fullmatch(answer) is not None


_MOVE = r"\"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])\""
_COLOUR = r"\"[0-9]{1,3}\"\s*:\s*[0-9]{1,3}"
_TURN = r"[LRUDFB]w?'?"
_COLOURS = _grammar(rf"\{{\s*{_COLOUR}(?:\s*,\s*{_COLOUR}){{0,200}}\s*\}}")


def _coloured(answer: str, about: Mapping[str, Any]) -> bool:
    """A colour for each vertex, once, and for nothing else; the scorer overlooks what is too much."""
    named = re.findall(r"\"([0-9]+)\"", answer) if _COLOURS(answer, about) else []
    return sorted(named) == sorted(map(str, about["puzzle"]["vertices"]))


SCORED: dict[str, Scored] = {
    "cryptarithm": Scored(
        _grammar(r"[A-Z]\s*=\s*[0-9](?:\s*,\s*[A-Z]\s*=\s*[0-9]){0,9}", 200),
        ("words_letters", "result_letters", "allow_leading_zero"),
    ),
    "graph_color": Scored(_coloured, ("puzzle",)),
    "jugs": Scored(_grammar(rf"\[\s*{_MOVE}(?:\s*,\s*{_MOVE}){{0,200}}\s*\]"), ("puzzle",)),
    "kakurasu": Scored(
        _grammar(r"[01](?: [01])*(?:\n[01](?: [01])*)*", 500), ("row_sums", "col_sums", "n_rows", "n_cols")
    ),
    "quantum_lock": Scored(
        _grammar(r"[A-C](?:\s*(?:→|->)\s*[A-C]){0,99}", 800),
        ("buttons", "initial_value", "initial_state", "target_value"),
    ),
    "rubiks_cube": Scored(_grammar(rf"{_TURN}(?: +{_TURN}){{0,999}}"), ("cube_size", "scramble_moves")),
    "shortest_path": Scored(
        _grammar(r"infeasible|(?:up|down|left|right)(?: (?:up|down|left|right)){0,500}"), ("matrix",)
    ),
    "sokoban": Scored(_grammar(r"[LRUD]{1,2000}"), ("gamestr",)),
    "tower_of_hanoi": Scored(
        _grammar(
            r"Move disk [0-9]{1,2} from Peg [0-9]{1,2} to Peg [0-9]{1,2}"
            r"(?:\s*\nMove disk [0-9]{1,2} from Peg [0-9]{1,2} to Peg [0-9]{1,2})*",
            50_000,
        ),
        ("num_disks", "num_pegs", "start_peg", "target_peg", "solution_length"),
    ),
}
