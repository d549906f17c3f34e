"""A search from the papers, one simulation after the other, and the random numbers that the seed of a game gives it.

Gumbel AlphaZero: Danihelka et al., ICLR 2022, sections 3 to 5 and appendix D. PUCT: Silver et al., arXiv:1712.01815.
Edges are the legal actions in ascending order, a tie goes to the first. Values are of the seat to act in the state that
holds them, in units of the game's largest utility. The root counts as no simulation. Games of two seats and no chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from selfplay.store.release.verifier.rows import UNITS, Row, Unknown

#: state -> logits of all actions, value of the seat to act.
Evaluate = Callable[[Any], tuple[Any, float]]
#: How far values of equal searches may be apart: means of numbers that each were rounded.
MEANS = 2e-3
NOISE_SETTINGS = ("considered", "c_visit", "c_scale", "c_init", "c_base", "fpu_reduction", "dirichlet_fraction",
                  "simulations", "cheap_simulations", "full_fraction")  # fmt: skip
DRAW_SETTINGS = ("opening_fraction", "opening_plies", "opening_choices", "temperature", "temperature_plies",
                 "resign_playon")  # fmt: skip
MOST_MADE, NO_LIMIT = 100_000, 2**31


def playing_of(config: Any) -> Row | None:
    """The settings of a run that its searches follow from; None where they are not all there."""
    try:
        search, play = config["search"], config["selfplay"]
        told = {name: search[name] for name in NOISE_SETTINGS} | {name: play[name] for name in DRAW_SETTINGS}
        if not all(isinstance(value, int | float) and 0 <= value < 2**31 for value in told.values()):
            return None
        if max(told["simulations"], told["cheap_simulations"]) > MOST_MADE or not 0 < told["opening_choices"] <= 64:
            return None
        if search["algorithm"] not in ("gumbel", "puct") or told["opening_plies"] > 10_000:
            return None
        more = {"algorithm": search["algorithm"], "alpha": search["dirichlet_alpha"]}
        more["exact"] = (play.get("dtype"), play.get("device")) == ("float32", "cpu")
        return told | more | {"resigns": play["resign_threshold"] is not None, "limit": play["ply_limit"] or NO_LIMIT}
    except (KeyError, TypeError, AttributeError):
        return None


class Draws:
    """The random numbers of a game, in the order in which they were drawn. openings: lines, of which one was played."""

    def __init__(self, game: Any, how: Row, seed: int) -> None:
        self.how, self.rng = how, np.random.Generator(np.random.PCG64(seed))
        self.openings: list[list[int]] = []
        if how["resigns"]:
            self.rng.random()
        if how["opening_plies"] and self.rng.random() < how["opening_fraction"]:
            plies = min(int(self.rng.integers(1, int(how["opening_plies"]) + 1)), how["limit"] - 1)
            self.openings = [self.line(game, plies) for _ in range(int(how["opening_choices"]))]

    def line(self, game: Any, plies: int) -> list[int]:
        """Random moves, until the next would end the game."""
        found, state = list[int](), game.new_initial_state()
        while len(found) < plies:
            moves = state.legal_actions()
            action = moves[int(self.rng.integers(len(moves)))]
            state = state.child(action)
            if state.is_terminal():
                break
            found.append(action)
        return found

    def noise(self, count: int) -> tuple[bool, Any]:
        """Whether the next search is a full one, and the noise of its `count` moves."""
        how = self.how
        full = how["full_fraction"] >= 1 or bool(self.rng.random() < how["full_fraction"])
        if how["algorithm"] == "gumbel":
            return full, self.rng.gumbel(size=count)
        return full, self.rng.dirichlet([how["alpha"] or 10.0 / count] * count) if full else None

    def move(self, ply: int, actions: list[int], visits: list[int]) -> int | None:
        """What is played after a PUCT search; None where the search decides."""
        how = self.how
        if how["algorithm"] == "gumbel" or not any(visits):
            return None
        if how["temperature"] == 0 or ply >= how["temperature_plies"]:
            return actions[visits.index(max(visits))]
        shares = (np.array(visits) / max(visits)) ** (1.0 / how["temperature"])
        return int(self.rng.choice(actions, p=shares / shares.sum()))

    def contradicts(self, ply: int, step: Row, full: bool) -> str | None:
        """What in a step is not as its seed draws it, the noise of its search apart; draws its move."""
        made = self.how["simulations" if full else "cheap_simulations"]
        if (full, made) != (step["full_search"], step["simulations"]):
            return f"step {ply} is a search of {step['simulations']} simulations, and its seed draws one of {made}"
        actions, visits = ([one[name] for one in step["candidates"]] for name in ("action", "visits"))
        drawn = self.move(ply, actions, visits)
        if drawn not in (None, step["action"]):
            return f"step {ply} plays {step['action']}, and its seed draws {drawn} from its visits"
        return None


class Place:
    """A state of the tree. visits, total: of each edge, how often it was taken and the sum of what that was worth."""

    def __init__(self, state: Any, evaluate: Evaluate) -> None:
        if state.is_chance_node() or state.is_simultaneous_node():
            raise Unknown("its game has chance or moves of all seats at once: no search of it is made again here")
        logits, self.raw = evaluate(state)
        self.state, self.seat, self.actions = state, state.current_player(), sorted(state.legal_actions())
        chosen = [float(logits[action]) for action in self.actions]
        mass = max(chosen) + math.log(sum(math.exp(one - max(chosen)) for one in chosen))
        self.log_prior = [one - mass for one in chosen]
        self.prior = [math.exp(one) for one in self.log_prior]
        self.visits, self.total = [0] * len(chosen), [0.0] * len(chosen)
        self.below: dict[int, Place] = {}

    def scores(self, how: Row) -> list[float]:
        """log prior + (c_visit + most visits) c_scale q, for q in [0, 1]; without visits q is the mixed value."""
        made, mixed = sum(self.visits), (self.raw + 1) / 2
        q = {i: (self.total[i] / n + 1) / 2 for i, n in enumerate(self.visits) if n}
        if q:
            weights = {i: max(self.prior[i], 2.0**-1022) for i in q}
            mixed = (mixed + made * sum(weights[i] * q[i] for i in q) / sum(weights.values())) / (1 + made)
        scale = (how["c_visit"] + max(self.visits)) * how["c_scale"]
        return [p + scale * q.get(i, mixed) for i, p in enumerate(self.log_prior)]

    def lagging(self, how: Row) -> int:
        """Gumbel below the root: the edge that has the fewest visits for what the improved policy gives it."""
        scores = self.scores(how)
        parts = [math.exp(one - max(scores)) for one in scores]
        made = sum(self.visits)
        return first_best([p / sum(parts) - n / (1 + made) for p, n in zip(parts, self.visits, strict=True)])

    def upper(self, how: Row, less: float) -> int:
        """PUCT: the edge of the highest bound. less: what an edge without visits is worth less than its state."""
        made = sum(self.visits)
        seen = sum(p for p, n in zip(self.prior, self.visits, strict=True) if n)
        rate = how["c_init"] + math.log((1 + made + how["c_base"]) / how["c_base"])
        return first_best([(w / n if n else self.raw - less * math.sqrt(seen))
                           + rate * p * math.sqrt(max(made, 1)) / (1 + n)
                           for p, n, w in zip(self.prior, self.visits, self.total, strict=True)])  # fmt: skip


def first_best(numbers: list[float]) -> int:
    return numbers.index(max(numbers))


def wanted_visits(considered: int, simulations: int) -> Iterator[int]:
    """Of each simulation, how many visits the root's edge that it takes has had: sequential halving."""
    if considered <= 1:
        yield from range(simulations)
        return
    alive, had, left = considered, 0, simulations
    while left:
        for _ in range(max(1, simulations // (math.ceil(math.log2(considered)) * alive))):
            yield from [had] * min(alive, left)
            had, left = had + 1, left - min(alive, left)
        alive = max(2, alive // 2)


def search(state: Any, evaluate: Evaluate, unit: float, made: int, noise: Any, how: Row) -> tuple[Place, int]:
    """The root after a search, and the edge that it plays. unit: the largest utility. noise: a number for each edge."""
    root, gumbel = Place(state, evaluate), how["algorithm"] == "gumbel"

    def best_of(had: int) -> int:
        scores = [g + score for g, score in zip(noise, root.scores(how), strict=True)]
        return first_best([score if n == had else -math.inf for score, n in zip(scores, root.visits, strict=True)])

    def simulate(edge: int) -> None:
        path = [(root, edge)]
        while True:
            place, edge = path[-1]
            if edge not in place.below:
                break
            place = place.below[edge]
            path.append((place, place.lagging(how) if gumbel else place.upper(how, how["fpu_reduction"])))
        after = place.state.child(place.actions[edge])
        if after.is_terminal():
            seat, value = place.seat, after.returns()[place.seat] / unit
        else:
            place.below[edge] = Place(after, evaluate)
            seat, value = place.below[edge].seat, place.below[edge].raw
        for one, taken in path:
            one.visits[taken] += 1
            one.total[taken] += value if one.seat == seat else -value

    if gumbel:
        for had in wanted_visits(min(how["considered"], len(root.actions), made), made):
            simulate(best_of(had))
        return root, best_of(max(root.visits))
    if noise is not None:
        share = how["dirichlet_fraction"]
        root.prior = [(1 - share) * p + share * x for p, x in zip(root.prior, noise, strict=True)]
    for _ in range(made):
        simulate(root.upper(how, how["fpu_reduction"] if noise is None else 0.0))
    return root, first_best([float(n) for n in root.visits] if made else root.log_prior)


def same_search(step: Row, root: Place, edge: int, gumbel: bool) -> bool:
    """Whether a search found what is recorded: visits, values, and where it alone decides, the move."""
    visits, values = ([one[name] for one in step["candidates"]] for name in ("visits", "q"))
    if visits != root.visits or (gumbel and root.actions[edge] != step["action"]):
        return False
    value = (root.raw + sum(root.total)) / (1 + sum(visits))
    pairs = [(q / UNITS, w / n) for q, w, n in zip(values, root.total, visits, strict=True) if n]
    return all(abs(a - b) <= MEANS for a, b in [*pairs, (step["root_value"] / UNITS, value)])


def opening_lies(row: Row, draws: Draws) -> str | None:
    """What is wrong with the random moves that a game begins with, by its seed."""
    line: list[int] = []
    for step in row["game"]["steps"]:
        if step["source"] != "opening":
            break
        line.append(step["action"])
    return None if line in (draws.openings or [[]]) else f"its opening {line} is none that its seed draws"
