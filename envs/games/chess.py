"""Chess.

Description:
    The game under the rules of FIDE, with automatic draws: stalemate, insufficient material, the third occurrence of a
    position, and fifty moves of each side without a capture or a pawn's move.

Actions:
    4674. A move is 73 * square + kind, where square is 8 * file + rank of the piece that moves and kind one of 73
    directions and distances, both seen by the side to move (ranks are counted from its own side). Two more numbers are
    not used here. A person writes algebraic notation: "Nf3", "exd5", "O-O".

Observation:
    Planes [20, 8, 8], rows are ranks from White's side, columns are files; whichever seat asks, and a plane with the
    seat to act follows. Planes 0 to 11: king, queen, rook, bishop, knight, pawn, White's before Black's of each. 12:
    empty squares. 13: how often the position has occurred. 14: ones where White is to move. 15: plies since a capture
    or a pawn's move, divided by 101. 16 to 19: castling rights, White's before Black's. Entries are in [0, 1].

Returns:
    Per seat: win 1, draw 0, loss -1. Seat 0 is Black and seat 1 is White, so seat 1 moves first.

Episode end:
    Checkmate or one of the draws. After 512 plies an episode is truncated.

Symmetries:
    None: castling tells left from right, and pawns up from down.

Source:
    OpenSpiel "chess".

Version history:
    v0: first version.
"""

from __future__ import annotations

import pyspiel

from envs.games import _board
from selfplay.contract import GameSpec

SIZE = 8
SEATS = (_board.cell("♚ Black", _board.FIRST), _board.cell("♔ White", _board.SECOND))
WHITE = dict(zip("KQRBNP", "♔♕♖♗♘♙", strict=True))
BLACK = dict(zip("kqrbnp", "♚♛♜♝♞♟", strict=True))
SHADES = ("on grey23", "on grey11")


def draw(state: pyspiel.State) -> str:
    squares, before, last = placement(str(state)), None, ""
    history = state.history()
    if history:
        parent = state.get_game().new_initial_state()
        for action in history[:-1]:
            parent.apply_action(action)
        before = placement(str(parent))
        last = parent.action_to_string(parent.current_player(), history[-1])
    lines = []
    for r in range(SIZE):
        row = []
        for c in range(SIZE):
            piece = squares[SIZE * r + c]
            changed = before is not None and before[SIZE * r + c] != piece
            shade = "on grey37" if changed else SHADES[(r + c) % 2]
            style = _board.SECOND if piece.isupper() else _board.FIRST
            row.append(f"[{style} {shade}]{WHITE.get(piece) or BLACK.get(piece) or ' '} [/]")
        lines.append(f"[{_board.DIM}]{SIZE - r}[/] {''.join(row)}")
    lines.append(f"  [{_board.DIM}]{' '.join('abcdefgh')}[/]")
    return "\n".join([*lines, "", _board.caption(state, SEATS, last)])


def placement(fen: str) -> str:
    """The 64 squares from a8 to h1: a letter for a piece, a space for none."""
    ranks = fen.split(" ", 1)[0].split("/")
    return "".join("".join(" " * int(x) if x.isdigit() else x for x in rank) for rank in ranks)


SPEC = GameSpec(
    id="chess-v0",
    game="chess",
    summary="Chess under the rules of FIDE",
    ply_limit=512,
    draw=draw,
)
