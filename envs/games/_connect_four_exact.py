"""Exact play of connect four (6 x 7): who wins from here, by alpha-beta search on bitboards.

A board is two 49-bit integers: `own`, the stones of the side to move, and `mask`, all stones. Cell (column, row), rows
counted from the bottom, is bit `7 * column + row`; the seventh row of a column stays empty, so that lines never run
over its edge. Values are -1, 0 and 1 (lost, drawn, won) for the side to move: a weak solution, blind to how soon.

The search (Knuth and Moore 1975, negamax with fail-soft bounds and a transposition table) never enters a position in
which the side to move wins at once, plays only moves that do not lose at once, and stops early at three proofs:

- no line of four is open any more for a side: it cannot win;
- claimeven (Allis 1988, "A knowledge-based approach of connect-four", section 3): when every column has an even number
  of empty cells, the side that is *not* to move can always answer in the same column. It then gets every second cell,
  counted from the bottom, and the other side gets the rest. If the rest completes no line, it cannot lose, and if its
  own cells then hold a line it wins;
- the same, when the side to move can make all columns even by its own move.

This module imports numba; it is imported when a solver is asked for (`GameSpec.exact`), not when games are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selfplay.contract import ExactSolver

if TYPE_CHECKING:
    import pyspiel

#: Fewest stones on a board that `exact()` solves: all moves of one position take about this long at most there.
MIN_PLIES = 8
CELLS = 42
TABLE_BITS = 21  # 2 M entries of 8 bytes

COLUMN = (1 << 6) - 1
BOTTOM = sum(1 << (7 * column) for column in range(7))
BOARD = COLUMN * BOTTOM
#: Second, fourth and sixth row: what claimeven gives to the side that answers.
ANSWERS = BOTTOM * 0b101010
#: Columns from the centre outwards: the order in which equally promising moves are tried.
CENTRE_FIRST = (3, 2, 4, 1, 5, 0, 6)


@njit(cache=True)
def has_four(stones: int) -> bool:
    """Whether four of `stones` stand in a line."""
    for step in (1, 6, 7, 8):
        pairs = stones & (stones >> step)
        if pairs & (pairs >> (2 * step)):
            return True
    return False


@njit(cache=True)
def winning_cells(stones: int, mask: int) -> int:
    """The empty cells, reachable now or not, that would complete a line of four of `stones`."""
    cells = (stones << 1) & (stones << 2) & (stones << 3)
    for step in (6, 7, 8):
        below = (stones << step) & (stones << (2 * step))
        above = (stones >> step) & (stones >> (2 * step))
        cells |= below & ((stones << (3 * step)) | (stones >> step))
        cells |= above & ((stones >> (3 * step)) | (stones << step))
    return cells & BOARD & ~mask


@njit(cache=True)
def count_bits(cells: int) -> int:
    """How many bits of a non-negative integer are set."""
    count = 0
    while cells:
        cells &= cells - 1
        count += 1
    return count


@njit(cache=True)
def assess(own: int, mask: int, alpha: int, beta: int, table: NDArray[np.int64]) -> tuple[int, int, int]:
    """What is known of a position without trying moves: (moves worth trying, lower bound, upper bound).

    own, mask: the board; the side to move must have no win at once. No moves: the bounds settle the position with
    respect to (alpha, beta): they are equal, or the lower is at least beta, or the upper at most alpha.
    """
    other = own ^ mask
    free = BOARD & ~mask
    heads = mask + BOTTOM  # the lowest free cell of each column; its seventh row for full columns
    moves = heads & BOARD
    threats = winning_cells(other, mask)
    forced = moves & threats
    if forced:
        if forced & (forced - 1):
            return 0, -1, -1
        moves = forced
    moves &= ~(threats >> 1)
    but_one = free & (free - 1)
    if but_one & (but_one - 1) == 0 and (moves or not free):
        return 0, 0, 0  # at most two cells are left, and neither side wins with its own
    if moves == 0:
        return 0, -1, -1

    lower, upper = -1, 1
    if not has_four(own | free):
        upper = 0
    if not has_four(other | free):
        lower = 0
    odd_columns = heads & ANSWERS
    if odd_columns == 0:
        if not has_four(own | (free & ~ANSWERS)):
            upper = 0
            if has_four(other | (free & ANSWERS)):
                return 0, -1, -1
    elif odd_columns & (odd_columns - 1) == 0 and not has_four(other | (free & ~ANSWERS)):
        lower = 0
        if has_four(own | (free & ANSWERS)):
            return 0, 1, 1

    key = own + mask
    entry = table[slot_of(key, table)]
    if entry >> 4 == key:
        lower = max(lower, ((entry >> 2) & 3) - 1)
        upper = min(upper, (entry & 3) - 1)
    if lower >= upper or lower >= beta or upper <= alpha:
        return 0, lower, upper
    return moves, lower, upper


@njit(cache=True)
def slot_of(key: int, table: NDArray[np.int64]) -> int:
    """Where a key belongs in the table, whose size is a power of two."""
    return ((key * 0x9E3779B97F4A7C1) >> 32) & (table.size - 1)


@njit(cache=True)
def rate_moves(own: int, mask: int, moves: int) -> int:
    """Four bits a column, lowest first: 1 + the cells that would complete a line after the move; 0 for no move."""
    merits = 0
    for column in range(7):
        move = moves & (COLUMN << (7 * column))
        if move:
            merits |= (1 + min(14, count_bits(winning_cells(own | move, mask | move)))) << (4 * column)
    return merits


@njit(cache=True)
def known_best(own: int, mask: int, moves: int, table: NDArray[np.int64]) -> int:
    """The best lower bound that the table holds for any of the moves, for the side that makes it; -1 if for none."""
    best = -1
    for column in range(7):
        move = moves & (COLUMN << (7 * column))
        if move:
            key = (own ^ mask) + (mask | move)
            entry = table[slot_of(key, table)]
            if entry >> 4 == key:
                best = max(best, 1 - (entry & 3))
    return best


@njit(cache=True)
def search(own: int, mask: int, table: NDArray[np.int64]) -> int:
    """The value, -1, 0 or 1, of a position for the side to move, which must have no win at once.

    Negamax with an explicit stack (numba's cache on disk does not hold recursive functions).
    table: `[2**n]` entries `key * 16 + (lower + 1) * 4 + (upper + 1)`, bounds for the side to move; 0 is empty.
    """
    stack = np.empty((CELLS + 1, 8), np.int64)  # a row a position: own, mask, low, high, lower, upper, best, merits
    depth, entering, value = 0, True, 0
    alpha, beta = -1, 1
    while True:
        row = stack[depth]
        if entering:
            moves, lower, upper = assess(own, mask, alpha, beta, table)
            if moves == 0:
                value = lower if lower >= min(upper, beta) else upper
                if depth == 0:
                    return value
                depth -= 1
                entering = False
                continue
            row[0], row[1], row[2], row[3] = own, mask, max(alpha, lower), min(beta, upper)
            row[4], row[5], row[6], row[7] = lower, upper, -1, rate_moves(own, mask, moves)
            known = known_best(own, mask, moves, table)
            if known >= row[3]:
                row[6] = known
        else:
            row[6] = max(row[6], -value)
        low, high, lower, upper, best, merits = row[2], row[3], row[4], row[5], row[6], row[7]
        if best < high and merits:
            chosen, merit = 0, 0
            for column in CENTRE_FIRST:
                candidate = (merits >> (4 * column)) & 15
                if candidate > merit:
                    chosen, merit = column, candidate
            row[7] = merits & ~(15 << (4 * chosen))
            own, mask = row[0] ^ row[1], row[1] | ((row[1] + BOTTOM) & (COLUMN << (7 * chosen)))
            alpha, beta = -high, -max(low, best)
            depth += 1
            entering = True
            continue
        if best >= high:
            lower = max(lower, best)
        elif best <= low:
            upper = min(upper, max(best, lower))
        else:
            lower = upper = best
        key = row[0] + row[1]
        table[slot_of(key, table)] = (key << 4) | ((lower + 1) << 2) | (upper + 1)
        value = min(max(best, lower), upper)
        if depth == 0:
            return value
        depth -= 1
        entering = False


@njit(cache=True)
def solve_moves(own: int, mask: int, table: NDArray[np.int64], values: NDArray[np.int8]) -> None:
    """Writes the value of each move for the side that makes it to `values` `[7]` int8; full columns are left alone."""
    for column in range(7):
        move = (mask + BOTTOM) & (COLUMN << (7 * column))
        if move == 0:
            continue
        after = mask | move
        other = own ^ mask
        if has_four(own | move):
            values[column] = 1
        elif winning_cells(other, after) & (after + BOTTOM):
            values[column] = -1
        else:
            values[column] = -search(other, after, table)


def bitboards(state: pyspiel.State) -> tuple[int, int]:
    """(own, mask) of an OpenSpiel connect-four state, `own` being the stones of the seat to act."""
    rows = str(state).split()
    if len(rows) != 6 or any(len(row) != 7 for row in rows):
        raise ValueError("exact play of connect four is for 6 rows and 7 columns with four in a row")
    stone = "xo"[state.current_player()]
    own = mask = 0
    for height, row in enumerate(reversed(rows)):
        for column, cell in enumerate(row):
            if cell != ".":
                mask |= 1 << (7 * column + height)
                if cell == stone:
                    own |= 1 << (7 * column + height)
    return own, mask


def exact(min_plies: int = MIN_PLIES, table_bits: int = TABLE_BITS) -> ExactSolver:
    """A solver of `connect_four`: legal action (column) -> -1.0, 0.0 or 1.0 for the seat to act.

    min_plies: with fewer stones on the board the solver raises `ValueError`, because solving would take too long.
    table_bits: the transposition table has `2**table_bits` entries of 8 bytes. It is kept from call to call; what it
      holds is true of a position wherever it occurs, so results do not depend on earlier calls.
    A terminal state has no legal actions: an empty mapping.
    """
    table = np.zeros(1 << table_bits, np.int64)

    def solve(state: pyspiel.State) -> dict[int, float]:
        if state.is_terminal():
            return {}
        own, mask = bitboards(state)
        if mask.bit_count() < min_plies:
            raise ValueError(
                f"exact play of connect four needs at least {min_plies} stones on the board, got {mask.bit_count()}"
            )
        values = np.zeros(7, np.int8)
        solve_moves(own, mask, table, values)
        return {action: float(values[action]) for action in state.legal_actions()}

    return solve
