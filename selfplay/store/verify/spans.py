"""Whether the policy spans of games say of every decision, once, who made it, and nothing that the steps contradict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.schema import EVENEST, SIMULTANEOUS, UNIFORM
from selfplay.store.verify.plies import NONE, OPENING, RANDOM, Array, Plies, integers, offsets

_UNIFORM, _EVENEST, _OTHER = range(3)
_KNOWN = {UNIFORM: _UNIFORM, EVENEST: _EVENEST}
_DIGEST = r"\A[0-9a-f]{64}\z"


@dataclass(frozen=True)
class _Spans:
    """P spans. row: `[P]`, whose. seat, first, last, version, policy, digest: `[P]` int64, the last two as codes, -1
    where there is none. kind: of each policy, by its code."""

    row: Array
    seat: Array
    first: Array
    last: Array
    version: Array
    policy: Array
    digest: Array
    kind: Array


#: Takes rows, and what is wrong with them.
_Add = Callable[[Array, str], None]


def span_lies(column: pa.ListArray, plies: Plies, seats: Array, games: Array) -> dict[int, str]:
    """Row -> what is wrong with the spans of a game, in a sentence. column: `policy_spans`.

    seats: `[N]`, of each row. games: `[N]` bool, the rows that are asked about.
    """
    lies: dict[int, str] = {}

    def add(rows: Array, sentence: str) -> None:
        for row in np.unique(rows).tolist():
            lies.setdefault(row, sentence)

    row, flat = np.repeat(np.arange(len(column)), np.diff(offsets(column))), column.flatten()
    if not games.all():
        flat, row = flat.filter(pa.array(games[row])), row[games[row]]
    fields = {name: pc.struct_field(flat, name) for name in flat.type.names}
    policy, digest = (fields[name].dictionary_encode() for name in ("policy_id", "digest"))
    names, digests = policy.dictionary.to_pylist(), digest.dictionary
    s = _Spans(
        row=row,
        seat=integers(fields["seat"]),
        first=integers(fields["first_step"]),
        last=integers(fields["last_step"]),
        version=integers(fields["version"]),
        policy=np.asarray(policy.indices.cast(pa.int64()).fill_null(-1)),
        digest=np.asarray(digest.indices.cast(pa.int64()).fill_null(-1)),
        kind=np.array([*(_KNOWN.get(name, _OTHER) for name in names), _OTHER]),
    )
    kind = s.kind[s.policy]
    steps = np.diff(plies.ends)[s.row]
    empty = np.array([*(not name for name in names), True])[s.policy]
    malformed = np.array([*(~np.asarray(pc.match_substring_regex(digests, _DIGEST)) if len(digests) else ()), False])
    add(s.row[empty | (s.version == NONE)], "a policy span lacks its policy or its version")
    inside = (s.first >= 0) & (s.first <= s.last) & (s.last < steps)
    for i in np.flatnonzero(~inside).tolist():
        lies.setdefault(int(row[i]), f"a policy span covers steps {s.first[i]} to {s.last[i]} of {steps[i]}")
    seated = (s.seat >= 0) & (s.seat < seats[s.row])
    for i in np.flatnonzero(~seated).tolist():
        lies.setdefault(int(row[i]), f"a policy span is of seat {s.seat[i]}")
    add(s.row[(s.version < 0) | malformed[s.digest].astype(bool)], "a policy span has a version or digest that is none")
    weightless = (kind == _UNIFORM) & ((s.version != 0) | (s.digest >= 0))
    add(s.row[weightless], "a policy span is of random moves, and names weights")
    sound = np.flatnonzero(inside & seated)
    _tightness(s, sound, plies, steps, add)
    _coverage(s, sound, plies, seats, add)
    _order(s, add)
    return lies


def _tightness(s: _Spans, sound: Array, plies: Plies, steps: Array, add: _Add) -> None:
    """A span begins and ends with a step of its seat, but for those that say that all steps of a game were random."""
    row, seat = s.row[sound], s.seat[sound]
    begin = plies.ends[row]
    loose = np.zeros(len(sound), bool)
    for place in (begin + s.first[sound], begin + s.last[sound]):
        loose |= (plies.seat[place] != seat) & (plies.seat[place] != SIMULTANEOUS)
    all_random = (s.first[sound] == 0) & (s.last[sound] == steps[sound] - 1) & (s.kind[s.policy[sound]] == _UNIFORM)
    add(row[loose & ~all_random], "a policy span begins or ends at a step of another seat")


def _coverage(s: _Spans, sound: Array, plies: Plies, seats: Array, add: _Add) -> None:
    """Every decision lies in one span of its seat (all at once: in one of each seat), by who can have made it."""
    together, steps = plies.seat == SIMULTANEOUS, len(plies.row)
    covered, twice, wrong = np.zeros(steps, np.int64), np.zeros(steps, bool), np.zeros(steps, bool)
    begin, end = plies.ends[s.row] + s.first, plies.ends[s.row] + s.last + 1
    for seat in np.unique(s.seat[sound]).tolist():
        mine = sound[s.seat[sound] == seat]
        own = np.flatnonzero((plies.seat == seat) | (together & (seat < seats[plies.row])))
        count, owner = (
            _running(begin[mine], end[mine], weight, steps)[own] for weight in (np.ones(len(mine)), mine)
        )
        one = count == 1
        covered[own] += one
        twice[own] |= count > 1
        kind, source = s.kind[s.policy[np.where(one, owner, 0)]], plies.source[own]
        random = (kind == _UNIFORM) & (source != RANDOM) & (source != OPENING)
        other = (source == RANDOM) & (kind != _UNIFORM) | (source == OPENING) & (kind == _OTHER)
        wrong[own] |= one & (random | other | ((kind == _EVENEST) & (source != OPENING)))
    wanted = np.where(together, seats[plies.row], plies.seat >= 0)
    add(plies.row[twice], "a step lies in two policy spans of its seat")
    add(plies.row[covered < wanted], "a step lies in no policy span of its seat")
    add(plies.row[wrong], "a policy span is of random moves and its steps are not, or the other way round")


def _running(begin: Array, end: Array, weight: Array, steps: int) -> Array:
    """`[steps]` int64: the sum of the weights of all spans `begin : end` that a step lies in."""
    change = np.bincount(begin, weight, steps + 1) - np.bincount(end, weight, steps + 1)
    return np.cumsum(change)[:steps].astype(np.int64)


def _order(s: _Spans, add: _Add) -> None:
    """Within a game a policy's versions never go back, and a version has one digest."""
    order = np.lexsort((s.digest, s.version, s.first, s.policy, s.row))
    row, policy, version, digest = (x[order] for x in (s.row, s.policy, s.version, s.digest))
    same = (row[1:] == row[:-1]) & (policy[1:] == policy[:-1])
    add(row[1:][same & (version[1:] < version[:-1])], "a later policy span names an earlier version of its policy")
    other = same & (version[1:] == version[:-1]) & (digest[1:] != digest[:-1])
    add(row[1:][other], "two policy spans give one version two digests")
