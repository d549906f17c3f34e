"""Whether the seats of a game of self-play resigned when, and only when, the settings of their run say so.

A seat resigns after so many of its searches in a row of which neither the value of the root nor that of the move that
the search prefers is above a threshold. In some games, which the seed draws, nobody does: they are played on, and say
who would have been the first. All this stands in the row, rounded: what rounding may have hidden is left open.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.schema import UNITS
from selfplay.store.verify.plies import NONE, SEARCH, Array, Plies, integers
from selfplay.store.verify.searched import ROUNDING, SearchSettings


def resignation_lies(
    games: pa.StructArray, plies: Plies, settings: list[SearchSettings | None], seeds: Array, own: Array
) -> dict[int, str]:
    """Row -> what contradicts the rule. games: the column `game`. seeds, own: `[N]`, of each row, and whether it is of
    self-play; others may resign as they like."""
    found = {}
    searched = plies.source == SEARCH
    resigned, would = (integers(pc.struct_field(games, f"{word}_seat")) for word in ("resigned", "would_have_resigned"))
    told = np.asarray(pc.fill_null(pc.struct_field(games, "played_on_after_resignation"), False))
    over = np.asarray(pc.fill_null(pc.equal(pc.struct_field(games, "ended_by"), "terminal"), False))
    for row in np.flatnonzero(own).tolist():
        one = settings[row]
        steps = np.arange(plies.ends[row], plies.ends[row + 1])
        steps = steps[searched[steps]]
        if one is None or one.resign_threshold is None or one.resign_moves is None or not len(steps):
            continue
        if one.resign_playon is not None and told[row] != _played_on(int(seeds[row]), one.resign_playon):
            which = "was to be played on" if told[row] else "was not to be played on"
            found[row] = f"it says that it {which} after a resignation, and its seed draws the opposite"
            continue
        last = int(plies.ends[row + 1]) - 1 if over[row] else NONE  # who ends a game does not think of resigning
        low = plies.root[steps] < ROUNDING - one.resign_threshold * UNITS
        seat = int(resigned[row]), int(would[row])
        if low.sum() < one.resign_moves and max(seat) < 0:
            continue
        reason = _rule_lies(plies, steps[steps != last].tolist(), one, bool(told[row]), *seat)
        if reason is not None:
            found[row] = reason
    return found


def _played_on(seed: int, share: float) -> bool:
    """What the seed of a game draws first; see `selfplay.play.draws.GameDraws`."""
    return seed >= 0 and bool(np.random.Generator(np.random.PCG64(seed)).random() < share)


def _rule_lies(
    plies: Plies, steps: list[int], settings: SearchSettings, played_on: bool, resigned: int, would: int
) -> str | None:
    """What contradicts the rule in one game. steps: its searches. resigned, would: seats, below 0: none."""
    assert settings.resign_threshold is not None and settings.resign_moves is not None
    moves, limit = int(settings.resign_moves), -settings.resign_threshold * UNITS
    surely: dict[int, int] = {}  # seat -> how many of its latest moves in a row were without hope
    perhaps: dict[int, int] = {}
    named = would if played_on else resigned
    for step in steps:
        seat, hope = int(plies.seat[step]), _hope(plies, step, settings.algorithm == "gumbel")
        surely[seat] = surely.get(seat, 0) + 1 if hope < limit - ROUNDING else 0
        perhaps[seat] = perhaps.get(seat, 0) + 1 if hope < limit + ROUNDING else 0
        if seat == named and perhaps[seat] >= moves and (played_on or step == steps[-1]):
            return None
        if surely[seat] >= moves:
            which = "the row does not name it as the first" if played_on else "did not resign"
            return f"step {plies.ply[step]}: seat {seat} was without hope for {moves} moves in a row, and {which}"
    return None if named < 0 else f"seat {named} was not without hope for {moves} moves in a row"


def _hope(plies: Plies, step: int, gumbel: bool) -> int:
    """The better of the value of the root and of the move that its search prefers, in units of storage."""
    root, of = int(plies.root[step]), slice(int(plies.first[step]), int(plies.first[step + 1]))
    visits = plies.visits[of]
    if not len(visits) or not visits.any():
        return root
    best = np.flatnonzero(plies.option[of] == plies.action[step]) if gumbel else [int(visits.argmax())]
    return max(root, int(plies.q[of][best[0]])) if len(best) else root
