"""Go on nine by nine points, area scoring, komi 7.5.

Description:
    Black and White in turn place a stone on an empty point or pass. A chain without a free neighbour (liberty) is
    captured; suicide is not legal, nor is taking back a ko at once. After two passes the side with the larger area
    (stones and enclosed points; nothing is removed as dead, as in the rules of Tromp and Taylor) wins, White with 7.5
    points added. Black moves first.

Actions:
    82. Action 9 * row + column places a stone; row 0 is at the bottom, column 0 at the left. Action 81 passes. A person
    writes a letter for the column (without I) and a number for the row from the bottom: action 0 is "A1".

Observation:
    Planes [4, 9, 9] with entries 0 or 1, rows from the bottom: stones of the seat to act, stones of the other seat,
    empty points, and a plane of ones where White is to act (komi makes the colours differ). (OpenSpiel's first two
    planes are Black and White whichever seat asks; `seat_planes` puts them into this order.)

Returns:
    Per seat: win 1, loss -1. A position that repeats an earlier one of the game ends it, with 0 for both.

Episode end:
    Two passes or a repeated position. After 160 plies an episode is truncated, two before OpenSpiel would score the
    board as it stands.

Source:
    OpenSpiel "go".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import GameSpec

SIZE = 9
PASS = SIZE * SIZE
COLUMNS = "ABCDEFGHJ"
STARS = {(r, c) for r in (2, 6) for c in (2, 6)} | {(4, 4)}
SEATS = (_board.cell("● Black", _board.FIRST), _board.cell("○ White", _board.SECOND))
SYMBOLS = {"X": ("●", _board.FIRST), "O": ("○", _board.SECOND)}


def draw(state: pyspiel.State) -> str:
    last = _board.last_action(state)
    lines = [line[3:] for line in str(state).splitlines()[2 : 2 + SIZE]]
    rows = [[point(stone, SIZE - 1 - i, c, last) for c, stone in enumerate(line)] for i, line in enumerate(lines)]
    caption = _board.caption(state, SEATS, "" if last is None else written(last))
    return _board.board(rows, "987654321", COLUMNS, caption)


def point(stone: str, row: int, column: int, last: int | None) -> str:
    empty = ("+" if (row, column) in STARS else "·", _board.DIM)
    return _board.cell(*SYMBOLS.get(stone, empty), last=last == SIZE * row + column)


def written(action: int) -> str:
    return "pass" if action == PASS else f"{COLUMNS[action % SIZE]}{action // SIZE + 1}"


def action_text(state: pyspiel.State, action: int) -> str:
    return written(action)


SPEC = GameSpec(
    id="go-v0",
    game="go(board_size=9,komi=7.5)",
    summary="Go on nine by nine points, area scoring, komi 7.5",
    ply_limit=160,
    symmetries=_board.square_symmetries(SIZE, extra_actions=1),
    seat_planes=((0, 1, 2, 3), (1, 0, 2, 3)),
    policy_planes=1,
    draw=draw,
    action_text=action_text,
)
