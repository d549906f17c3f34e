"""Breakthrough on a board of eight by eight: be the first to reach the far side.

Description:
    Each side begins with two rows of pieces. A piece moves one square straight or diagonally forward onto an empty
    square, or diagonally forward onto an opponent's piece, which it captures. Whoever reaches the last row, or captures
    everything, wins. There is no draw. Black moves first, from the top.

Actions:
    768, laid out as [row, column, direction, capture] of [8, 8, 6, 2]; row 0 is at the top. Directions 0 to 2 are down
    and to the left, down, down and to the right (Black); 3 to 5 the same upwards (White). A person writes both squares:
    "a7a6", and "a7b6*" for a capture.

Observation:
    Planes [3, 8, 8] with entries 0 or 1, rows from the top: Black's pieces, White's pieces, empty squares, whichever
    seat asks; a plane with the seat to act follows. (The planes are not swapped for White, because its pieces move the
    other way.)

Returns:
    Per seat: win 1, loss -1.

Episode end:
    A piece on the last row, or a side without pieces. The ply limit of 209 is never exceeded.

Source:
    OpenSpiel "breakthrough".

Version history:
    v0: first version.
"""

from __future__ import annotations

import numpy as np
import pyspiel

from envs.games import _board
from selfplay.contract import GameSpec, Symmetry

SIZE = 8
LAYOUT = (SIZE, SIZE, 6, 2)
SEATS = (_board.cell("● Black", _board.FIRST), _board.cell("○ White", _board.SECOND))
SYMBOLS = {"b": ("●", _board.FIRST), "w": ("○", _board.SECOND), ".": ("·", _board.DIM)}


def text(state: pyspiel.State) -> str:
    end = "over" if state.is_terminal() else f"{'bw'[state.current_player()]} to move"
    return f"{str(state).rstrip()}\n{end}"


def draw(state: pyspiel.State) -> str:
    action = _board.last_action(state)
    target = None if action is None else squares(action)[1]
    rows = [
        [_board.cell(*SYMBOLS[piece], last=(r, c) == target) for c, piece in enumerate(line[1:])]
        for r, line in enumerate(str(state).splitlines()[:SIZE])
    ]
    caption = _board.caption(state, SEATS, "" if action is None else written(action))
    return _board.board(rows, "87654321", "abcdefgh", caption)


def squares(action: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """From where to where the action moves: (row, column) twice, rows from the top."""
    row, column, direction, _ = (int(i) for i in np.unravel_index(action, LAYOUT))
    return (row, column), (row + (1 if direction < 3 else -1), column + direction % 3 - 1)


def written(action: int) -> str:
    names = "".join(f"{'abcdefgh'[c]}{SIZE - r}" for r, c in squares(action))
    return names + "*" * (action % 2)


def action_text(state: pyspiel.State, action: int) -> str:
    return written(action)


def _mirrored_actions() -> tuple[int, ...]:
    """The columns and, within the directions of each side, left and right change places."""
    actions = np.arange(np.prod(LAYOUT)).reshape(LAYOUT)
    return tuple(actions[:, ::-1, [2, 1, 0, 5, 4, 3], :].reshape(-1).tolist())


SPEC = GameSpec(
    id="breakthrough-v0",
    game="breakthrough",
    summary="Pieces race to the far side and capture diagonally, on eight by eight",
    ply_limit=209,
    symmetries=(Symmetry("mirror", _mirrored_actions(), _board.mirror),),
    policy_planes=12,
    text=text,
    draw=draw,
    action_text=action_text,
)
