"""Exact play of tic-tac-toe: plain minimax over all 5,478 reachable states, remembered by board.

A board decides who is to move, so its drawing is the key. The first call of a solver on the empty board fills the
table in about 50 ms; every call after it is a few look-ups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfplay.contract import ExactSolver

if TYPE_CHECKING:
    import pyspiel


def exact() -> ExactSolver:
    """A solver of any state of `tic_tac_toe`: legal action -> -1.0, 0.0 or 1.0 for the seat to act.

    A terminal state has no legal actions: an empty mapping.
    """
    known: dict[str, float] = {}

    def value(state: pyspiel.State, seat: int) -> float:
        """The value of `state` for `seat`; the table holds it for the first seat."""
        board = str(state)
        if board not in known:
            if state.is_terminal():
                known[board] = float(state.returns()[0])
            else:
                mover = state.current_player()
                best = max(value(state.child(action), mover) for action in state.legal_actions())
                known[board] = best if mover == 0 else -best
        return known[board] if seat == 0 else -known[board]

    def solve(state: pyspiel.State) -> dict[int, float]:
        if state.is_terminal():
            return {}
        seat = state.current_player()
        return {action: value(state.child(action), seat) + 0.0 for action in state.legal_actions()}

    return solve
