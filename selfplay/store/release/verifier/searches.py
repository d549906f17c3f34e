"""The searches of a game, and whether they add up: step by step, in plain arithmetic on what is stored.

Stored priors p and values v (root, raw, q) are whole numbers of 1/32767 (of 1, of value_scale); each was rounded to the
nearest and may have been held as float32 before, so it stands for all numbers within `SLACK` of it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from selfplay.store.release.verifier.rows import CHANCE, SIMULTANEOUS, UNITS, Lie, Row, parsed

SLACK = 0.5 + 3 * 2**-24 * UNITS  # half a unit, and three roundings to float32
#: Sources of moves without a search.
UNSEARCHED = ("random", "opening", "chance")
#: A prior below this was taken for it in logarithms.
LEAST = 1e-9
#: Where a row tells of more, it is not asked how they were spread.
MOST_SIMULATIONS = 2**20
Interval = tuple[float, float]


def settings_of(runs: list[Row]) -> dict[str, Row]:
    """Digest of a configuration -> its parts "search" and "selfplay", for runs whose searches are known here."""
    found = {}
    for run in runs:
        try:
            config = parsed(run["config"])
            search, play = config["search"], config["selfplay"]
            known = search["algorithm"] in ("gumbel", "puct") and all(sound(search[c]) for c in ("c_visit", "c_scale"))
            told = [search.get(c) for c in ("considered", "simulations", "cheap_simulations", "full_fraction")]
            told += [play.get(c) for c in ("temperature", "temperature_plies", "opening_plies", "ply_limit")]
            told += [play.get(c) for c in ("resign_threshold", "resign_moves", "resign_playon")]
            known = known and all(sound(number) for number in told if number is not None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if known and run["config_digest"] is not None:
            found[run["config_digest"]] = {"search": search, "selfplay": play}
    return found


def sound(number: Any) -> bool:
    return isinstance(number, int | float) and 0 <= number < 2**31


def step_lies(ply: int, step: Row, seats: int) -> None:
    """What a step says of itself, search or none. Raises `Lie`."""

    def lie(reason: str) -> None:
        raise Lie(f"step {ply}: {reason}")

    seat, source, candidates = step["seat"], step["source"], step["candidates"]
    if any(step[name] is None for name in ("seat", "action", "source", "simulations", "full_search", "candidates")):
        lie("it lacks its seat, action, source, simulations, full_search or candidates")
    if not is_name(source):
        lie("its source is no name")
    if (step["joint"] is not None) != (seat == SIMULTANEOUS):
        lie("it has a joint action exactly if all seats moved at once")
    if seat == SIMULTANEOUS and (len(step["joint"]) != seats or step["action"] != -1):
        lie("a joint action has one action a seat")
    if (source == "chance") != (seat == CHANCE):
        lie("chance, and nobody else, has the source chance")
    if source == "search" and not candidates:
        lie("its source is a search, and it has no candidates")
    if candidates and (source in UNSEARCHED or seat < 0):
        lie("it has candidates, and nobody searched")
    surprise, estimates = step["surprise"], step["seat_values"]
    if not candidates:
        if step["simulations"] != 0 or step["full_search"]:
            lie("it has simulations, and no candidates")
        none = surprise is None or math.isnan(surprise)
        if not none or estimates is not None or step["root_value"] is not None or step["raw_value"] is not None:
            lie("it has values of a search, and no candidates")
        return
    if step["root_value"] is None or step["raw_value"] is None:
        lie("its search has no root value or no raw value")
    if not finite(surprise) or surprise < 0:
        lie("the surprise of its search is no number of 0 or more")
    if estimates is not None and (len(estimates) != seats or not all(finite(value) for value in estimates)):
        lie("its seat values are not one a seat")


def is_name(text: str) -> bool:
    """At most 40 of small letters, digits and a few marks, a letter first."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return 0 < len(text) <= 40 and text[0] in letters and set(text) <= set(letters + "0123456789_.-")


def finite(number: Any) -> bool:
    return number is not None and math.isfinite(number)


def search_lies(ply: int, step: Row, settings: Row | None) -> None:
    """What a search says of itself, and against the settings of its run. Raises `Lie`."""

    def lie(reason: str) -> None:
        raise Lie(f"step {ply}: {reason}")

    candidates = step["candidates"]
    actions, visits, priors, values = ([one[name] for one in candidates]
                                       for name in ("action", "visits", "prior", "q"))  # fmt: skip
    made, root, raw = step["simulations"], step["root_value"], step["raw_value"]
    if None in actions or any(later <= earlier for earlier, later in zip(actions, actions[1:], strict=False)):
        lie("its candidates are not actions in ascending order")
    if step["action"] not in actions:
        lie("the action played is not among its candidates")
    if any(number is None or number < 0 for number in visits + priors):
        lie("a candidate has visits or a prior below zero, or none")
    if sum(visits) != made:
        lie(f"the visits sum to {sum(visits)}, and the search made {made} simulations")
    if any((q is None) != (n == 0) for q, n in zip(values, visits, strict=True)):
        lie("a candidate has visits without a value, or a value without visits")
    if any(abs(q) > UNITS for q in [*values, root, raw] if q is not None):
        lie("a value lies outside the utilities of the game")
    if abs(sum(priors) - UNITS) > SLACK * len(priors) + 1:
        lie(f"the priors sum to {sum(priors) / UNITS:.4f}")
    played = visits[actions.index(step["action"])]
    if made > 0 and played == 0:
        lie("the action played was never visited")
    # The root's value is the mean of the raw value and of every value backed up; a mean of numbers that are each off
    # by at most SLACK is off by at most SLACK, and so is the root's own.
    backed_up = raw + sum(n * q for n, q in zip(visits, values, strict=True) if n)
    if abs(backed_up - root * (1 + made)) > 2 * SLACK * (1 + made):
        lie("its root value is not the mean of the raw value and of all values backed up")
    if settings is not None:
        settings_lie(ply, step, visits, priors, values, settings)


def settings_lie(ply: int, step: Row, visits: list[int], priors: list[int], values: list[Any], settings: Row) -> None:
    """A search against the settings of its run: its length, what may be played, how surprising it was."""

    def lie(reason: str) -> None:
        raise Lie(f"step {ply}: {reason}")

    search, play = settings["search"], settings["selfplay"]
    wanted = search.get("simulations" if step["full_search"] else "cheap_simulations")
    if wanted is not None and wanted != step["simulations"]:
        lie(f"such searches of its run make {wanted} simulations, and it made another number")
    if (search.get("full_fraction") or 0) >= 1 and not step["full_search"]:
        lie("it is a cheap search, and its run made none")
    played = [one["action"] for one in step["candidates"]].index(step["action"])
    if search["algorithm"] == "gumbel":
        if visits[played] != max(visits):
            lie("the action played is not among the most visited, of which Gumbel plays one")
        if search.get("considered") is not None and 0 < sum(visits) <= MOST_SIMULATIONS:
            halved = halving(min(search["considered"], len(visits), sum(visits)), sum(visits))
            if sorted(n for n in visits if n) != sorted(n for n in halved if n):
                lie("its visits are not those that sequential halving makes")
        low, high = gumbel_surprise(visits, priors, values, step["raw_value"], search["c_visit"], search["c_scale"])
    else:
        temperature, plies = play.get("temperature"), play.get("temperature_plies")
        if temperature is not None and plies is not None and (ply >= plies or temperature == 0 or not any(visits)):
            if visits[played] != max(visits) or (not any(visits) and priors[played] != max(priors)):
                lie("the action played is not the most visited one")
            if any(visits) and visits.index(max(visits)) != played:
                lie("the action played is not the first of the most visited ones")
        low, high = visit_surprise(visits, priors)
    if not low <= step["surprise"] <= high:
        lie(f"its surprise is {step['surprise']:.4g}, and {low:.4g} to {high:.4g} follows from its priors, visits "
            "and values")  # fmt: skip


@functools.lru_cache(maxsize=4096)
def halving(considered: int, simulations: int) -> list[int]:
    """The visits after sequential halving (Danihelka et al. 2022, section 3.3), one simulation after the other."""
    visits, survivors, left = [0] * considered, considered, simulations
    phases = math.ceil(math.log2(considered)) if considered > 1 else 1
    while left:
        for _ in range(max(1, simulations // (phases * survivors))):
            for i in range(min(survivors, left)):
                visits[i] += 1
            left -= min(survivors, left)
        survivors = max(min(2, considered), survivors // 2)
    return visits


def gumbel_surprise(visits: list[int], priors: list[int], values: list[Any], raw: int, c_visit: float, c_scale: float
                    ) -> Interval:  # fmt: skip
    """Lowest and highest KL(t || p) for t = p exp(s) / Z: the sum of t s, less log Z; s = sigma(completed q).

    sigma(x) = (c_visit + most visits) c_scale x, for x in [0, 1]; the completed q of what was never visited is
    (raw + N m) / (1 + N), with m the mean of the visited q by their priors (appendix D).
    """
    made = sum(visits)
    if not made:
        return rounded(0.0, 0.0)
    prior = [(max(p - SLACK, 0.0) / UNITS, (p + SLACK) / UNITS) for p in priors]
    error = SLACK / UNITS / 2  # of a value in [0, 1]
    half = [None if q is None else (q / UNITS + 1) / 2 for q in values]
    net = (raw / UNITS + 1) / 2
    low_mean, high_mean = mean_value([(h, p, q) for h, p, q in zip(half, priors, prior, strict=True) if h is not None])
    if not any(p > SLACK for p, h in zip(priors, half, strict=True) if h is not None):
        low_mean, high_mean = min(low_mean, net), max(high_mean, net)  # priors that were zero: the net's value alone
    unvisited = tuple((net + way * error + made * (mean + way * error)) / (1 + made)
                      for way, mean in ((-1, low_mean), (1, high_mean)))  # fmt: skip
    scale = (c_visit + max(visits)) * c_scale
    scores = [(scale * (h - error), scale * (h + error)) if h is not None
              else (scale * unvisited[0], scale * unvisited[1]) for h in half]  # fmt: skip
    # With all scores lowered by the highest one, x <= 0 and KL = (sum of p x exp(x)) / Z - log Z, Z = sum of p exp(x).
    top = max(high for _, high in scores)
    low_z = high_z = low_sum = high_sum = 0.0
    for (low_p, high_p), (low, high) in zip(prior, scores, strict=True):
        low_x, high_x = low - top, high - top
        low_z += low_p * math.exp(low_x)
        high_z += high_p * math.exp(high_x)
        ends = (low_x * math.exp(low_x), high_x * math.exp(high_x))  # x exp(x) is lowest at -1
        low_sum += high_p * (-1 / math.e if low_x <= -1 <= high_x else min(ends))
        high_sum += low_p * max(ends)
    left_out = len(visits) * LEAST / math.e  # p log(LEAST / p) is at most LEAST / e for p below LEAST
    lowest = low_sum / low_z - math.log(high_z) - left_out / low_z if low_z > 0 else 0.0
    highest = high_sum / high_z - math.log(low_z) + left_out if low_z > 0 else math.inf
    return rounded(lowest, highest)


def mean_value(visited: list[tuple[float, int, Interval]]) -> Interval:
    """Between what the mean of values by their priors lies.

    For true p and stored r it is off by sum (p - r)(v - m) over sum p; and it lies between the least and the greatest.
    """
    least, greatest = min(v for v, _, _ in visited), max(v for v, _, _ in visited)
    low_mass, mass = sum(low for _, _, (low, _) in visited), sum(p for _, p, _ in visited)
    if low_mass <= 0:
        return least, greatest
    mean = sum(v * p for v, p, _ in visited) / mass
    off = SLACK / UNITS * sum(abs(v - mean) for v, _, _ in visited) / low_mass
    return max(mean - off, least), min(mean + off, greatest)


def visit_surprise(visits: list[int], priors: list[int]) -> Interval:
    """Lowest and highest KL of the share of visits from the prior; without a visit the prior is the target."""
    shares = [(n / sum(visits), p) for n, p in zip(visits, priors, strict=True) if n]
    lowest = sum(t * math.log(t / max((p + SLACK) / UNITS, LEAST)) for t, p in shares)
    return rounded(lowest, sum(t * math.log(t / max((p - SLACK) / UNITS, LEAST)) for t, p in shares))


def rounded(lowest: float, highest: float) -> Interval:
    """With what float32 did to it: logarithms of at most 21, each off by 2**-22 of itself or so. Never below 0."""
    slack = 21 * 2.0**-21
    return max(lowest, 0.0) - slack, max(highest, 0.0) * (1 + 2.0**-21) + slack
