"""The steps of all games of a batch as flat columns, so that what is asked of each is asked of all at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array = np.ndarray[Any, Any]

#: Where an integer column has no value: no honest one holds it.
NONE = -(2**40)
#: Sources of moves that this package writes, by their codes; `OTHER` is well-formed, `MALFORMED` is no name at all.
SEARCH, RANDOM, OPENING, CHANCE, OTHER, MALFORMED = range(6)
_SOURCES = {"search": SEARCH, "random": RANDOM, "opening": OPENING, "chance": CHANCE}
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Plies:
    """N rows (of games, or of what has no steps), S steps, C candidates. Values in units of value_scale / 32767, of the
    seat to act; `NONE` or NaN where there is none.

    ends: `[N + 1]`, steps of row r are `ends[r] : ends[r + 1]`. row, ply: `[S]`, whose step it is, and its place there.
    seat, action, simulations, root, raw: `[S]` int64. full, jointly: `[S]` bool. surprise: `[S]` float64.
    source: `[S]`, codes. moved, estimates: `[S]`, lengths of `joint` and of `seat_values`, -1 where there is none.
    finite: `[S]`, whether all seat values are. whole: `[S]`, whether a step has all fields that no step may lack.
    first: `[S + 1]`, candidates of step s are `first[s] : first[s + 1]`. option, visits, prior, q: `[C]` int64.
    """

    ends: Array
    row: Array
    ply: Array
    seat: Array
    action: Array
    source: Array
    simulations: Array
    full: Array
    root: Array
    raw: Array
    surprise: Array
    moved: Array
    estimates: Array
    finite: Array
    whole: Array
    first: Array
    option: Array
    visits: Array
    prior: Array
    q: Array


def plies_of(games: pa.StructArray) -> Plies:
    """The steps of the column `game`; rows without a game have none."""
    steps = pc.struct_field(games, "steps")
    flat, ends = steps.flatten(), offsets(steps)
    fields = {name: pc.struct_field(flat, name) for name in flat.type.names}
    nested = fields["candidates"]
    candidates = nested.flatten()
    lengths = np.diff(ends)
    row = np.repeat(np.arange(len(lengths)), lengths)
    source = fields["source"].dictionary_encode()
    codes = np.array([*map(_code, source.dictionary.to_pylist()), MALFORMED])  # the last: of what is null
    whole = np.ones(len(flat), bool)
    for name in ("seat", "action", "source", "simulations", "full_search", "candidates"):
        if fields[name].null_count:
            whole &= np.asarray(fields[name].is_valid())
    finite = np.ones(len(flat), bool)
    if fields["seat_values"].null_count < len(flat):
        values = _floats(fields["seat_values"].flatten())
        bad = np.repeat(np.arange(len(flat)), np.diff(offsets(fields["seat_values"])))[~np.isfinite(values)]
        finite[bad] = False
    return Plies(
        ends=ends,
        row=row,
        ply=np.arange(len(flat)) - ends[:-1][row],
        seat=integers(fields["seat"]),
        action=integers(fields["action"]),
        source=codes[np.asarray(source.indices.fill_null(len(codes) - 1))],
        simulations=integers(fields["simulations"]),
        full=np.asarray(fields["full_search"].fill_null(False)),
        root=integers(fields["root_value"]),
        raw=integers(fields["raw_value"]),
        surprise=_floats(fields["surprise"]),
        moved=np.asarray(pc.fill_null(pc.list_value_length(fields["joint"]), -1)),
        estimates=np.asarray(pc.fill_null(pc.list_value_length(fields["seat_values"]), -1)),
        finite=finite,
        whole=whole,
        first=offsets(nested),
        option=integers(pc.struct_field(candidates, "action")),
        visits=integers(pc.struct_field(candidates, "visits")),
        prior=integers(pc.struct_field(candidates, "prior")),
        q=integers(pc.struct_field(candidates, "q")),
    )


def offsets(lists: pa.ListArray) -> Array:
    """`[n + 1]` int64 offsets into the elements of all lists, nulls being empty."""
    ends = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(lists), 0)), out=ends[1:])
    return ends


def integers(column: pa.Array) -> Array:
    """int64, nulls as `NONE`."""
    wide = column.cast(pa.int64())
    return np.asarray(wide.fill_null(NONE) if wide.null_count else wide)


def _floats(column: pa.Array) -> Array:
    """float64, nulls as NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _code(word: str | None) -> int:
    return _SOURCES.get(word, OTHER) if word is not None and _NAME.fullmatch(word) else MALFORMED
