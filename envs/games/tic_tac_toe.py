"""Tic-tac-toe: three in a row on a board of three by three.

Description:
    Two players in turn mark an empty square, the first with x, the second with o. Whoever has three marks in a row,
    column or diagonal wins. With best play the game is a draw.

Actions:
    9. Action 3 * row + column marks that square; row 0 is at the top, column 0 at the left. A person writes a letter
    for the column and a number for the row from the bottom: action 0 is "a3", action 8 is "c1".

Observation:
    Planes [3, 3, 3] with entries 0 or 1, rows from the top: empty squares, marks of the seat to act, marks of the
    other seat. (OpenSpiel's planes are empty, o, x whichever seat asks; `seat_planes` puts them into this order.)

Returns:
    Per seat: win 1, draw 0, loss -1.

Episode end:
    Three in a row, or nine marks. The ply limit of 9 is never exceeded.

Source:
    OpenSpiel "tic_tac_toe".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import ExactSolver, GameSpec

SEATS = (_board.cell("✕", _board.FIRST), _board.cell("○", _board.SECOND))
SYMBOLS = {"x": ("✕", _board.FIRST), "o": ("○", _board.SECOND), ".": ("·", _board.DIM)}


def draw(state: pyspiel.State) -> str:
    last = _board.last_action(state)
    rows = [
        [_board.cell(*SYMBOLS[mark], last=last == 3 * r + c) for c, mark in enumerate(line)]
        for r, line in enumerate(str(state).splitlines())
    ]
    caption = _board.caption(state, SEATS, "" if last is None else square(last))
    return _board.board(rows, ("3", "2", "1"), "abc", caption)


def square(action: int) -> str:
    return f"{'abc'[action % 3]}{3 - action // 3}"


def action_text(state: pyspiel.State, action: int) -> str:
    return square(action)


def _exact() -> ExactSolver:
    from envs.games._tic_tac_toe_exact import exact

    return exact()


SPEC = GameSpec(
    id="tic_tac_toe-v0",
    game="tic_tac_toe",
    summary="Three in a row on a board of three by three",
    ply_limit=9,
    symmetries=_board.square_symmetries(3),
    seat_planes=((0, 2, 1), (0, 1, 2)),
    draw=draw,
    action_text=action_text,
    exact=_exact,
)
