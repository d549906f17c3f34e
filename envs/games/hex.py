"""Hex on a rhombus of eleven by eleven hexagons: connect your two sides.

Description:
    Two players in turn place a stone on an empty hexagon. The first (x) wins by a chain from the top to the bottom, the
    second (o) by one from the left to the right. There is no draw, and no swap rule: the first player has a winning
    strategy. A hexagon touches those left and right of it, above and above to the right, below and below to the left.

Actions:
    121. Action 11 * row + column places a stone; row 0 is at the top, column 0 at the left. A person writes a letter
    for the column and a number for the row from the top: action 12 is "b2".

Observation:
    Planes [9, 11, 11] with entries 0 or 1, rows from the top, whichever seat asks; a plane with the seat to act
    follows. Planes 0 to 3 are stones of the second player: the one that won, connected with the left side, with the
    right side, with neither. Plane 4 is empty hexagons. Planes 5 to 8 are stones of the first player: connected with
    neither side, with the bottom, with the top, the one that won. (Not swapped for the second player, because its sides
    are others.)

Returns:
    Per seat: win 1, loss -1.

Episode end:
    A chain between the two sides of one player, at the latest when the board is full. The ply limit of 121 is never
    exceeded.

Source:
    OpenSpiel "hex". Other sizes are played by their string, such as "openspiel:hex(board_size=5)".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import GameSpec, Symmetry

SIZE = 11
COLUMNS = "abcdefghijk"
SEATS = (_board.cell("● top to bottom", _board.FIRST), _board.cell("○ left to right", _board.SECOND))
SYMBOLS = {"x": ("●", _board.FIRST), "o": ("○", _board.SECOND), ".": ("·", _board.DIM)}


def draw(state: pyspiel.State) -> str:
    last = _board.last_action(state)
    edge = _board.cell("━" * (2 * SIZE + 1), _board.FIRST)
    side = _board.cell("╲", _board.SECOND)
    lines = [f"    [{_board.DIM}]{' '.join(COLUMNS)}[/]", f"   {edge}"]
    for r, line in enumerate(str(state).splitlines()):
        stones = (
            _board.cell(*SYMBOLS[stone], last=last == SIZE * r + c) for c, stone in enumerate(line.replace(" ", ""))
        )
        lines.append(f"{' ' * r}[{_board.DIM}]{r + 1:>2}[/] {side} {' '.join(stones)} {side}")
    lines.append(f"{' ' * (SIZE + 4)}{edge}")
    return "\n".join([*lines, "", _board.caption(state, SEATS, "" if last is None else square(last))])


def square(action: int) -> str:
    return f"{COLUMNS[action % SIZE]}{action // SIZE + 1}"


def action_text(state: pyspiel.State, action: int) -> str:
    return square(action)


def half_turn(x: _board.Array) -> _board.Array:
    """Top and bottom change places, and left and right, in the board and in what the planes say of the chains.

    x: `[..., 9, 11, 11]`, or more planes after the nine, which stay in their places.
    """
    order = [0, 2, 1, 3, 4, 5, 7, 6, 8, *range(9, x.shape[-3])]
    return _board.half_turn(x)[..., order, :, :]


SPEC = GameSpec(
    id="hex-v0",
    game="hex(board_size=11)",
    summary="Connect two opposite sides of a rhombus of eleven by eleven hexagons",
    ply_limit=SIZE * SIZE,
    symmetries=(Symmetry("half turn", tuple(reversed(range(SIZE * SIZE))), half_turn),),
    policy_planes=1,
    draw=draw,
    action_text=action_text,
)
