"""Whether the searches of games add up: each against itself, and against the settings of the run that made it.

No rules of a game and no weights are needed. What is stored was rounded to 1/32767, so sums are compared within what
that rounding can do, and no more: a bound is derived where it is used. A search of this package makes all simulations
that it is asked for and passes each through one action of its root, so visits are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from selfplay.episode.schema import CHANCE_SEAT, SIMULTANEOUS, UNITS
from selfplay.store.corpus.kept_settings import configuration
from selfplay.store.verify.plies import CHANCE, MALFORMED, NONE, OPENING, RANDOM, SEARCH, Array, Plies
from selfplay.store.verify.surprise import gumbel_surprise, visit_surprise

#: How far a stored number is from what was rounded, in its units: half of one, and what float32 adds before (a value is
#: held, and multiplied by its unit, in float32: three roundings of 2**-24 each, 0.006 of 1/32767).
ROUNDING = 0.5 + 3 * 2**-24 * UNITS


@dataclass(frozen=True)
class SearchSettings:
    """What a run's configuration says of its searches and moves; None: it is not told.

    algorithm: "gumbel" or "puct". resigns: whether a seat may resign. The others: see `trainers.alphazero.config`.
    """

    algorithm: str
    c_visit: float
    c_scale: float
    considered: int | None = None
    simulations: int | None = None
    cheap_simulations: int | None = None
    full_fraction: float | None = None
    temperature: float | None = None
    temperature_plies: int | None = None
    opening_plies: int | None = None
    ply_limit: int | None = None
    resigns: bool = True
    resign_threshold: float | None = None
    resign_moves: int | None = None
    resign_playon: float | None = None


def search_settings(runs: Iterable[Mapping[str, Any]]) -> dict[str, SearchSettings]:
    """By `config_digest`: the settings of the runs that search. runs: rows of the table `runs`."""
    found = {}
    for row in runs:
        settings = _settings(row["config"])
        if settings is not None and row["config_digest"] is not None:
            found[row["config_digest"]] = settings
    return found


def _settings(config: str | None) -> SearchSettings | None:
    """None for a run without search, and for a configuration that is not one that this version knows."""
    try:
        whole = configuration(config) or {}
        search, play = whole["search"], whole["selfplay"]
        told = {name: search.get(name) for name in ("c_visit", "c_scale", "full_fraction")}
        told |= {name: search.get(name) for name in ("considered", "simulations", "cheap_simulations")}
        told |= {name: play.get(name) for name in ("temperature", "temperature_plies", "opening_plies", "ply_limit")}
        told |= {name: play.get(name) for name in ("resign_threshold", "resign_moves", "resign_playon")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    algorithm = search.get("algorithm")
    numbers = [value for value in told.values() if value is not None]
    sound = all(isinstance(one, int | float) and 0 <= one < 2**31 for one in numbers)
    if algorithm not in ("gumbel", "puct") or not sound or told["c_visit"] is None or told["c_scale"] is None:
        return None
    return SearchSettings(algorithm, **told, resigns=play.get("resign_threshold", 1) is not None)


class Lies:
    """What is wrong with the steps of a batch: of each step the first thing that is found."""

    def __init__(self, plies: Plies) -> None:
        self._plies = plies
        self._kind = np.zeros(len(plies.row), np.int16)
        self._sentences: list[Callable[[int], str]] = []

    def add(self, wrong: Array, sentence: str | Callable[[int], str]) -> None:
        """wrong: `[S]` bool, or indices of steps. sentence: what is wrong, or what makes it of the index of a step."""
        steps = np.flatnonzero(wrong) if wrong.dtype == bool else wrong
        if len(steps):
            self._sentences.append(sentence if callable(sentence) else lambda _: sentence)
            self._kind[steps[self._kind[steps] == 0]] = len(self._sentences)

    def by_row(self) -> dict[int, str]:
        """Row -> what is wrong with the first of its steps that is wrong."""
        found: dict[int, str] = {}
        for step in np.flatnonzero(self._kind).tolist():
            row = int(self._plies.row[step])
            if row not in found:
                found[row] = f"step {self._plies.ply[step]}: {self._sentences[self._kind[step] - 1](step)}"
        return found


def search_lies(plies: Plies, seats: Array, settings: list[SearchSettings | None]) -> dict[int, str]:
    """Row -> what contradicts itself in its steps, in a sentence; rows in which nothing does are not there.

    seats: `[N]`, of each row. settings: N, of the run that made each row; None where they are not known.
    """
    lies = Lies(plies)
    at = np.flatnonzero(np.diff(plies.first))
    _steps_lie(plies, at, seats, lies)
    if len(at):
        searches = _searches(plies, at)
        _sums_lie(searches, lies)
        known: dict[SearchSettings, list[int]] = {}
        for row, one in enumerate(settings):
            if one is not None:
                known.setdefault(one, []).append(row)
        for one, rows in known.items():
            mine = np.isin(plies.row[at], rows)
            if mine.any():
                _settings_lie(searches if mine.all() else _searches(plies, at[mine]), one, lies)
    return lies.by_row()


def _steps_lie(p: Plies, at: Array, seats: Array, lies: Lies) -> None:
    """What every step is held to. at: the steps with candidates."""
    searched = np.zeros(len(p.row), bool)
    searched[at] = True
    together = p.seat == SIMULTANEOUS
    lies.add(p.seat < SIMULTANEOUS, "its seat is none")
    lies.add(~p.whole, "it lacks its seat, action, source, simulations, full_search or candidates")
    lies.add(p.source == MALFORMED, "its source is no name")
    lies.add((p.moved >= 0) != together, "it has a joint action exactly if all seats moved at once")
    lies.add(together & ((p.moved != seats[p.row]) | (p.action != -1)), "a joint action has one action a seat")
    lies.add((p.source == CHANCE) != (p.seat == CHANCE_SEAT), "chance, and nobody else, has the source chance")
    lies.add((p.source == SEARCH) & ~searched, "its source is a search, and it has no candidates")
    idle = (p.source == RANDOM) | (p.source == OPENING) | (p.source == CHANCE) | (p.seat < 0)
    lies.add(idle & searched, "it has candidates, and nobody searched")
    none = (p.root == NONE) & (p.raw == NONE) & np.isnan(p.surprise) & (p.estimates < 0)
    lies.add(~searched & ((p.simulations != 0) | p.full), "it has simulations, and no candidates")
    lies.add(~searched & ~none, "it has values of a search, and no candidates")
    lies.add(searched & ((p.root == NONE) | (p.raw == NONE)), "its search has no root value or no raw value")
    surprising = (p.surprise >= 0) & (p.surprise < np.inf)
    lies.add(searched & ~surprising, "the surprise of its search is no number of 0 or more")
    lies.add((p.estimates >= 0) & ((p.estimates != seats[p.row]) | ~p.finite), "its seat values are not one a seat")
    late = p.source == OPENING
    if late.any():  # after a move that was none
        played = np.concatenate([[0], np.cumsum((p.source != OPENING) & (p.source != CHANCE))])
        lies.add(late & (played[:-1] > played[p.ends[:-1][p.row]]), "an opening move comes after a move that is none")


@dataclass(frozen=True)
class Searches:
    """D searches: the steps `at` `[D]`. first, counts: `[D]`, of their candidates in the arrays `[M]` that follow.

    total, most, played: `[D]` int64: visits of all candidates together, of the most visited, of the one played.
    chosen: `[D]`, how many candidates are the one played: 1, in honest rows.
    """

    plies: Plies
    at: Array
    first: Array
    counts: Array
    option: Array
    visits: Array
    prior: Array
    q: Array
    valued: Array
    mine: Array
    total: Array
    most: Array
    played: Array
    chosen: Array


def _searches(p: Plies, at: Array) -> Searches:
    starts, counts = p.first[at], np.diff(p.first)[at]
    first = np.zeros(len(at), np.int64)
    np.cumsum(counts[:-1], out=first[1:])
    option, visits, prior, q = p.option, p.visits, p.prior, p.q
    if len(p.option) != counts.sum():
        flat = np.arange(counts.sum()) + np.repeat(starts - first, counts)
        option, visits, prior, q = option[flat], visits[flat], prior[flat], q[flat]
    mine = option == np.repeat(p.action[at], counts)
    return Searches(
        plies=p,
        at=at,
        first=first,
        counts=counts,
        option=option,
        visits=visits,
        prior=prior,
        q=q,
        valued=q != NONE,
        mine=mine,
        total=np.add.reduceat(visits, first),
        most=np.maximum.reduceat(visits, first),
        played=np.add.reduceat(np.where(mine, visits, 0), first),
        chosen=np.add.reduceat(mine.astype(np.int64), first),
    )


def _sums_lie(s: Searches, lies: Lies) -> None:
    """What every search is held to, whatever its settings."""
    p, at = s.plies, s.at
    raw, root, simulations = p.raw[at], p.root[at], p.simulations[at]
    ordered = np.ones(len(s.option), bool)
    ordered[1:] = s.option[1:] > s.option[:-1]
    ordered[s.first] = True

    def some(of_candidates: Array) -> Array:
        return at[np.logical_or.reduceat(of_candidates, s.first)]

    lies.add(some(~ordered | (s.option == NONE)), "its candidates are not actions in ascending order")
    lies.add(at[s.chosen != 1], "the action played is not among its candidates")
    lies.add(some((s.visits < 0) | (s.prior < 0)), "a candidate has visits or a prior below zero, or none")
    by_step = dict(zip(at.tolist(), s.total.tolist(), strict=True)) if (s.total != simulations).any() else {}
    lies.add(
        at[s.total != simulations],
        lambda i: f"the visits sum to {by_step[i]}, and the search made {p.simulations[i]} simulations",
    )
    lies.add(some(s.valued != (s.visits > 0)), "a candidate has visits without a value, or a value without visits")
    lies.add(some(s.valued & (np.abs(s.q) > UNITS)), "the value of a candidate lies outside the utilities of the game")
    lies.add(at[(np.abs(raw) > UNITS) | (np.abs(root) > UNITS)], "its value lies outside the utilities of the game")
    # Each prior was rounded on its own.
    excess = np.add.reduceat(s.prior, s.first) - UNITS
    lies.add(at[np.abs(excess) > ROUNDING * s.counts + 1], lambda i: f"the priors sum to {_prior(p, i):.4f}")
    lies.add(at[(s.played == 0) & (simulations > 0)], "the action played was never visited")
    # root = (raw + sum of N q) / (1 + sum of N): a mean of rounded numbers is off by as much as one of them, and so is
    # the stored root.
    sums = raw + np.add.reduceat(np.where(s.valued, s.visits * s.q, 0), s.first)
    off = np.abs(sums - root * (1 + s.total)) > 2 * ROUNDING * (1 + s.total)
    lies.add(at[off], "its root value is not the mean of the raw value and of all values backed up")


def _prior(p: Plies, step: int) -> float:
    return float(p.prior[p.first[step] : p.first[step + 1]].sum()) / UNITS


def _settings_lie(s: Searches, settings: SearchSettings, lies: Lies) -> None:
    """What the settings of its run say of a search: how long it was, what may be played, how surprising it was."""
    p, at = s.plies, s.at
    full, simulations, ply = p.full[at], p.simulations[at], p.ply[at]
    for count, which, word in ((settings.simulations, full, "full"), (settings.cheap_simulations, ~full, "cheap")):
        if count is not None:
            sentence = f"{word} searches of its run make {count} simulations, and it made another number"
            lies.add(at[which & (simulations != count)], sentence)
    if settings.full_fraction is not None and settings.full_fraction >= 1:
        lies.add(at[~full], "it is a cheap search, and its run made none")
    if settings.algorithm == "gumbel":
        lies.add(at[s.played != s.most], "the action played is not among the most visited, of which Gumbel plays one")
        if settings.considered is not None:
            wrong = ~_halved(s, settings.considered)
            lies.add(at[wrong], "its visits are not those that sequential halving makes")
        low, high = gumbel_surprise(
            s.first, s.visits, s.prior, s.q, p.raw[at], settings.c_visit, settings.c_scale, ROUNDING
        )
    else:
        best = np.where(s.total > 0, s.most, np.maximum.reduceat(s.prior, s.first))
        score = np.where(np.repeat(s.total > 0, s.counts), s.visits, s.prior)
        top = score == np.repeat(best, s.counts)
        played_top = np.logical_or.reduceat(top & s.mine, s.first)
        if settings.temperature is not None and settings.temperature_plies is not None:
            sharp = (ply >= settings.temperature_plies) | (settings.temperature == 0) | (s.total == 0)
            lies.add(at[sharp & ~played_top], "the action played is not the most visited one")
            place = np.arange(len(top)) - np.repeat(s.first, s.counts)
            leading = np.minimum.reduceat(np.where(top, place, len(top)), s.first)
            chosen = np.add.reduceat(np.where(s.mine, place, 0), s.first)
            tied = sharp & (s.total > 0) & (chosen != leading)  # of priors, equals may have been told apart
            lies.add(at[tied], "the action played is not the first of the most visited ones")
        low, high = visit_surprise(s.first, s.visits, s.prior, ROUNDING)
    told = p.surprise[at]
    with np.errstate(invalid="ignore"):
        off = ~((told >= low) & (told <= high))
    if off.any():
        bounds = dict(zip(at[off].tolist(), zip(low[off].tolist(), high[off].tolist(), strict=True), strict=True))
        lies.add(
            at[off],
            lambda i: f"its surprise is {p.surprise[i]:.4g}, and {bounds[i][0]:.4g} to {bounds[i][1]:.4g} follows from "
            "its priors, visits and values",
        )


def _halved(s: Searches, considered: int) -> Array:
    """`[D]` bool: whether the visits are, in some order, those that sequential halving gives to so many candidates."""
    right = np.ones(len(s.at), bool)
    keys, group = np.unique(np.stack([s.counts, s.total], 1), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    ends = np.searchsorted(group.reshape(-1)[order], np.arange(len(keys) + 1))
    for number, (count, total) in enumerate(keys.tolist()):
        if not 0 < total <= _MOST_SIMULATIONS:
            continue  # nothing to compare, or a hostile number
        mine = order[ends[number] : ends[number + 1]]
        visits = np.sort(s.visits[s.first[mine, None] + np.arange(count)], 1)
        wanted = halving_visits(min(considered, count, total), total)
        right[mine] = (visits[:, max(count - len(wanted), 0) :] == wanted).all(1)
    return right


_MOST_SIMULATIONS = 1 << 20


@lru_cache(maxsize=4096)
def halving_visits(considered: int, simulations: int) -> Array:
    """`[considered]` int64 ascending: visits after sequential halving of so many simulations among so many actions.

    Danihelka et al. 2022, section 3.3: every phase visits its survivors evenly, in rounds; the last may be cut short.
    """
    visits, left, survivors = np.zeros(considered, np.int64), simulations, considered
    phases = math.ceil(math.log2(considered)) if considered > 1 else 1
    while left:
        rounds = max(1, simulations // (phases * survivors)) if considered > 1 else left
        whole = min(rounds, left // survivors)
        visits[:survivors] += whole
        left -= whole * survivors
        if whole < rounds and left < survivors:
            visits[:left] += 1
            left = 0
        survivors = max(2, survivors // 2) if considered > 1 else 1
    visits.sort()
    return visits
