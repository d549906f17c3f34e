"""Othello (Reversi) on a board of eight by eight.

Description:
    Black and White in turn place a disc so that at least one straight run of the opponent's discs is enclosed between
    it and another own disc; all enclosed runs are turned over. Who has no such move passes. Whoever has more discs at
    the end wins. Black moves first.

Actions:
    65. Action 8 * row + column places a disc; row 0 is at the top, column 0 at the left. Action 64 passes and is legal
    only when nothing else is. A person writes a letter for the column and a number for the row from the top: action
    19 is "d3".

Observation:
    Planes [3, 8, 8] with entries 0 or 1, rows from the top: empty squares, discs of the seat to act, discs of the other
    seat. (OpenSpiel's own order for the seat that asks.)

Returns:
    Per seat: win 1, draw 0, loss -1. The margin does not count.

Episode end:
    Neither side can move. The ply limit of 128 is never exceeded (60 discs and the passes between them).

Symmetries:
    The three that map the first position to itself. The other four reflections and rotations of the square hold as
    well, but their images never occur in a game.

Source:
    OpenSpiel "othello".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import GameSpec

SIZE = 8
PASS = SIZE * SIZE
SEATS = (_board.cell("● Black", _board.FIRST), _board.cell("○ White", _board.SECOND))
SYMBOLS = {"x": ("●", _board.FIRST), "o": ("○", _board.SECOND), "-": ("·", _board.DIM)}
KEEPS_START = ("half turn", "transpose", "anti-transpose")


def draw(state: pyspiel.State) -> str:
    last = _board.last_action(state)
    lines = [line[2:17:2] for line in str(state).splitlines()[2:10]]
    rows = [
        [_board.cell(*SYMBOLS[disc], last=last == SIZE * r + c) for c, disc in enumerate(line)]
        for r, line in enumerate(lines)
    ]
    count = "".join(lines)
    discs = f"{count.count('x')} : {count.count('o')}"
    caption = _board.caption(state, SEATS, "" if last is None else square(last))
    return _board.board(rows, "12345678", "abcdefgh", f"{discs}   {caption}")


def square(action: int) -> str:
    return "pass" if action == PASS else f"{'abcdefgh'[action % SIZE]}{action // SIZE + 1}"


def action_text(state: pyspiel.State, action: int) -> str:
    return square(action)


SPEC = GameSpec(
    id="othello-v0",
    game="othello",
    summary="Discs that enclose others turn them over, on eight by eight",
    ply_limit=128,
    symmetries=tuple(s for s in _board.square_symmetries(SIZE, extra_actions=1) if s.name in KEEPS_START),
    policy_planes=1,
    draw=draw,
    action_text=action_text,
)
