"""Drawing of boards for a terminal and the permutations of a square or rectangular board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyspiel

from selfplay.contract import Symmetry

Array = np.ndarray[Any, Any]

FIRST = "bold red"
SECOND = "bold yellow"
DIM = "grey42"


def cell(symbol: str, style: str, last: bool = False) -> str:
    """One square as rich markup; the square moved to last stands on a light ground."""
    return f"[{style}{' on grey30' if last else ''}]{symbol}[/]"


def board(rows: Sequence[Sequence[str]], left: Sequence[str], bottom: Sequence[str], caption: str) -> str:
    """A framed board as rich markup.

    rows: from the top; every square is markup that prints one character.
    left, bottom: labels of the rows and the columns; a label of a column is one character.
    """
    width = max(len(label) for label in left)
    edge = "─" * (2 * len(rows[0]) + 1)
    lines = [f"{'':{width}} [{DIM}]╭{edge}╮[/]"]
    for label, row in zip(left, rows, strict=True):
        lines.append(f"[{DIM}]{label:>{width}} │[/] {' '.join(row)} [{DIM}]│[/]")
    lines.append(f"{'':{width}} [{DIM}]╰{edge}╯[/]")
    lines.append(f"{'':{width}}   [{DIM}]{' '.join(bottom)}[/]")
    return "\n".join([*lines, "", caption])


def caption(state: pyspiel.State, seats: Sequence[str], last: str = "") -> str:
    """Who is to move or how the game ended, and the last move. seats: markup that names the two seats."""
    if state.is_terminal():
        returns = state.returns()
        text = "draw" if returns[0] == returns[1] else f"{seats[0 if returns[0] > returns[1] else 1]} wins"
    else:
        text = f"{seats[state.current_player()]} to move"
    return f"{text}, after {last}" if last else text


def last_action(state: pyspiel.State) -> int | None:
    """The action that led to `state`; None at the start."""
    history: list[int] = state.history()
    return history[-1] if history else None


def grid_symmetry(name: str, size: tuple[int, int], turn: Callable[[Array], Array], extra_actions: int = 0) -> Symmetry:
    """The symmetry of a board whose action r * columns + c is the square in row r and column c of the observation.

    size: rows and columns.
    turn: maps arrays `[..., rows, columns]` to their image, such as `mirror`.
    extra_actions: how many actions follow that name no square (a pass) and stay what they are.
    """
    squares = size[0] * size[1]
    image = turn(np.arange(squares).reshape(size)).reshape(-1)
    actions = np.empty(squares, np.int64)
    actions[image] = np.arange(squares)
    return Symmetry(name, (*actions.tolist(), *range(squares, squares + extra_actions)), turn)


def mirror(x: Array) -> Array:
    """Left becomes right."""
    return x[..., ::-1]


def flip(x: Array) -> Array:
    """Top becomes bottom."""
    return x[..., ::-1, :]


def half_turn(x: Array) -> Array:
    return x[..., ::-1, ::-1]


def transpose(x: Array) -> Array:
    """Reflection in the diagonal from the first square of the first row."""
    return np.swapaxes(x, -1, -2)


def anti_transpose(x: Array) -> Array:
    """Reflection in the other diagonal."""
    return half_turn(transpose(x))


def quarter_turn(x: Array) -> Array:
    """Counter-clockwise, as `numpy.rot90`."""
    return flip(transpose(x))


def three_quarter_turn(x: Array) -> Array:
    return transpose(flip(x))


def square_symmetries(size: int, extra_actions: int = 0) -> tuple[Symmetry, ...]:
    """The seven reflections and rotations of a square board of `size` rows."""
    turns = {
        "mirror": mirror,
        "flip": flip,
        "half turn": half_turn,
        "transpose": transpose,
        "anti-transpose": anti_transpose,
        "quarter turn": quarter_turn,
        "three-quarter turn": three_quarter_turn,
    }
    return tuple(grid_symmetry(name, (size, size), turn, extra_actions) for name, turn in turns.items())
