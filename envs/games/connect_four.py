"""Connect Four: four in a row on a board of six rows and seven columns, stones fall to the bottom.

Description:
    Two players in turn drop a stone into one of seven columns; it comes to rest on the lowest free square. Whoever has
    four stones in a row, column or diagonal wins. With best play the first player wins (Allis 1988).

Actions:
    7. Action i drops a stone into column i, counted from the left from 0. A person writes the column from 1: action 0
    is "1". A full column is not legal.

Observation:
    Planes [3, 6, 7] with entries 0 or 1, rows from the bottom: stones of the seat to act, stones of the other
    seat, empty squares. (OpenSpiel's planes are x, o, empty whichever seat asks; `seat_planes` puts them into this
    order.)

Returns:
    Per seat: win 1, draw 0, loss -1.

Episode end:
    Four in a row, or 42 stones. The ply limit of 42 is never exceeded.

Source:
    OpenSpiel "connect_four".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import ExactSolver, GameSpec, Symmetry

COLUMNS = 7
SEATS = (_board.cell("●", _board.FIRST), _board.cell("○", _board.SECOND))
SYMBOLS = {"x": ("●", _board.FIRST), "o": ("○", _board.SECOND), ".": ("·", _board.DIM)}


def draw(state: pyspiel.State) -> str:
    lines = str(state).splitlines()
    last = _board.last_action(state)
    top = next((r for r, line in enumerate(lines) if last is not None and line[last] != "."), None)
    rows = [
        [_board.cell(*SYMBOLS[mark], last=(r, c) == (top, last)) for c, mark in enumerate(line)]
        for r, line in enumerate(lines)
    ]
    caption = _board.caption(state, SEATS, "" if last is None else f"column {last + 1}")
    return _board.board(rows, [" "] * len(rows), "1234567", caption)


def action_text(state: pyspiel.State, action: int) -> str:
    return str(action + 1)


def _exact() -> ExactSolver:
    from envs.games._connect_four_exact import exact

    return exact()


SPEC = GameSpec(
    id="connect_four-v0",
    game="connect_four",
    summary="Four in a row on seven columns of six, stones fall to the bottom",
    ply_limit=42,
    symmetries=(Symmetry("mirror", tuple(reversed(range(COLUMNS))), _board.mirror),),
    seat_planes=((0, 1, 2), (1, 0, 2)),
    draw=draw,
    action_text=action_text,
    exact=_exact,
)
