"""The rules of some games, compiled, so that a search of them need not call OpenSpiel at every leaf.

Only the search uses them: games are played, recorded and verified by OpenSpiel. Its rules are the truth, and tests
compare these with them position by position; a search by either finds the same to the last bit.

A position is `WORDS` uint64: the stones of seat 0, the stones of seat 1, the seat to act. Squares are bits:
- connect four: `7 * column + row`, rows from the bottom; the seventh row stays empty, so that no line runs over the
  edge of its column;
- tic-tac-toe, othello and breakthrough: `width * row + column`, rows from the top.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from selfplay.environments.game import Game

Array = np.ndarray[Any, Any]

#: Which rules: none that are compiled, or those of a game. Numbers, as compiled code tells games apart by them.
NONE, CONNECT_FOUR, TIC_TAC_TOE, OTHELLO, BREAKTHROUGH = 0, 1, 2, 3, 4
#: By full game string: other parameters are other rules, or another observation.
_KINDS = {
    "connect_four()": CONNECT_FOUR,
    "tic_tac_toe()": TIC_TAC_TOE,
    "othello()": OTHELLO,
    "breakthrough()": BREAKTHROUGH,
}
WORDS = 3
#: No position of these games has more legal actions.
MOST_LEGAL = 64
#: What `play` says of a game that is not over.
GOES_ON = 2

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_LINES = np.array([0o7, 0o70, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124], np.uint64)
_FULL = np.uint64(sum(0b111111 << (7 * column) for column in range(7)))
_FULL_3 = np.uint64(0o777)
_TOP, _BOTTOM = np.uint64(0xFF), np.uint64(0xFF << 56)
_INNER_COLUMNS, _ALL = np.uint64(0x7E7E7E7E7E7E7E7E), np.uint64(2**64 - 1)
_PASS = 64


def rules_of(game: Game) -> int:
    """The rules that are compiled for a game, `NONE` if there are none."""
    return _KINDS.get(game.string, NONE)


@njit(cache=True)
def read(kind: int, raw: Array, seat: int, board: Array) -> None:
    """The position `[WORDS]` of which OpenSpiel shows `raw` (`RawObservation.tensor`) to `seat`, which is to act."""
    size, planes = _planes(kind, seat)
    board[0], board[1], board[2] = 0, 0, seat
    for owner in range(2):
        for square in range(size):
            if raw[planes[owner] * size + square] > 0:
                board[owner] |= _ONE << _bit(kind, square)


@njit(cache=True)
def show(kind: int, board: Array, raw: Array) -> None:
    """The opposite of `read`: fills `raw` with what OpenSpiel shows the seat to act."""
    size, planes = _planes(kind, np.int64(board[2]))
    first, second, empty = planes[0] * size, planes[1] * size, planes[2] * size
    for square in range(size):
        bit = _bit(kind, square)
        a, b = (board[0] >> bit) & _ONE, (board[1] >> bit) & _ONE
        raw[first + square], raw[second + square], raw[empty + square] = a, b, _ONE - a - b


@njit(cache=True)
def _planes(kind: int, seat: int) -> tuple[int, tuple[int, int, int]]:
    """Squares of the board, and which planes of an observation show the stones of seats 0 and 1 and empty squares."""
    if kind == CONNECT_FOUR:
        return 42, (0, 1, 2)
    if kind == TIC_TAC_TOE:
        return 9, (2, 1, 0)
    if kind == OTHELLO:  # own stones first
        return 64, (1 + seat, 2 - seat, 0)
    return 64, (0, 1, 2)


@njit(cache=True)
def _bit(kind: int, square: int) -> np.uint64:
    """The bit of a square of an observation's plane."""
    if kind == CONNECT_FOUR:
        return np.uint64(7 * (square % 7) + square // 7)
    return np.uint64(square)


@njit(cache=True)
def play(kind: int, board: Array, action: int, after: Array) -> int:
    """Fills `after` with the position after a legal action of the seat to act.

    Returns 1, 0 or -1 where the game ends with it won, drawn or lost by that seat, else `GOES_ON`.
    """
    seat = np.int64(board[2])
    own, other = board[seat], board[1 - seat]
    after[2] = 1 - seat
    if kind == CONNECT_FOUR:  # the lowest empty square of a column: adding its first bit carries over all stones
        bottom = _ONE << np.uint64(7 * action)
        own |= ((own | other) + bottom) & (np.uint64(0b111111) * bottom)
        result = 1 if _four_in_a_row(own) else 0 if own | other == _FULL else GOES_ON
    elif kind == TIC_TAC_TOE:
        own |= _ONE << np.uint64(action)
        result = 0 if own | other == _FULL_3 else GOES_ON
        for line in _LINES:
            if own & line == line:
                result = 1
    elif kind == OTHELLO:
        result = GOES_ON
        if action != _PASS:
            stone = _ONE << np.uint64(action)
            turned = _turned(own, other, stone)
            own, other = own | stone | turned, other & ~turned
            if _places(other, own) == _ZERO and _places(own, other) == _ZERO:
                lead = _count(own) - _count(other)
                result = 1 if lead > 0 else -1 if lead < 0 else 0
    else:  # the action is [row, column, direction, capture] of [8, 8, 6, 2]
        direction, square = (action // 2) % 6, action // 12
        target = _ONE << np.uint64(square + (7 + direction if direction < 3 else direction - 12))
        own, other = (own ^ (_ONE << np.uint64(square))) | target, other & ~target
        result = 1 if target & (_TOP | _BOTTOM) or other == _ZERO else GOES_ON
    after[seat], after[1 - seat] = own, other
    return result


@njit(cache=True)
def legal_actions(kind: int, board: Array, actions: Array) -> int:
    """Fills `actions` (`MOST_LEGAL`) with the legal ones, ascending, where the game goes on; returns how many."""
    seat = np.int64(board[2])
    own, other = board[seat], board[1 - seat]
    taken = own | other
    count = 0
    if kind == CONNECT_FOUR:
        for column in range(7):
            if not (taken >> np.uint64(7 * column + 5)) & _ONE:
                actions[count] = column
                count += 1
    elif kind == BREAKTHROUGH:
        for square in range(64):
            if not (own >> np.uint64(square)) & _ONE:
                continue
            for side in range(-1, 2):
                if not 0 <= square % 8 + side < 8:
                    continue
                target = np.uint64(square + side + (8 if seat == 0 else -8))
                captures = np.int64((other >> target) & _ONE)
                if (own >> target) & _ONE or (captures and side == 0):
                    continue
                actions[count] = 12 * square + 2 * (1 + side + 3 * seat) + captures
                count += 1
    else:
        free = _places(own, other) if kind == OTHELLO else _FULL_3 & ~taken
        for square in range(64):
            if (free >> np.uint64(square)) & _ONE:
                actions[count] = square
                count += 1
        if count == 0:
            actions[0] = _PASS
            count = 1
    return count


@njit(cache=True)
def _four_in_a_row(stones: np.uint64) -> bool:
    for step in (1, 6, 7, 8):
        pairs = stones & (stones >> np.uint64(step))
        if pairs & (pairs >> np.uint64(2 * step)):
            return True
    return False


@njit(cache=True)
def _places(own: np.uint64, other: np.uint64) -> np.uint64:
    """Othello: the empty squares from which a stone of `own` would enclose some of `other`."""
    found = _ZERO
    for shift in (1, 7, 8, 9):
        step = np.uint64(shift)
        enclosed = other & (_ALL if shift == 8 else _INNER_COLUMNS)
        up, down = enclosed & (own << step), enclosed & (own >> step)
        for _ in range(5):
            up |= enclosed & (up << step)
            down |= enclosed & (down >> step)
        found |= (up << step) | (down >> step)
    return found & ~(own | other)


@njit(cache=True)
def _turned(own: np.uint64, other: np.uint64, stone: np.uint64) -> np.uint64:
    """Othello: the stones of `other` that a new `stone` of `own` turns over."""
    found = _ZERO
    for shift in (1, 7, 8, 9):
        step = np.uint64(shift)
        enclosed = other & (_ALL if shift == 8 else _INNER_COLUMNS)
        up, down = enclosed & (stone << step), enclosed & (stone >> step)
        for _ in range(5):
            up |= enclosed & (up << step)
            down |= enclosed & (down >> step)
        if (up << step) & own:
            found |= up
        if (down >> step) & own:
            found |= down
    return found


@njit(cache=True)
def _count(stones: np.uint64) -> int:
    count = 0
    while stones:
        stones &= stones - _ONE
        count += 1
    return count
