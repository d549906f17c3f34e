"""Where matches start. Each opening is played from both sides, so that no side's advantage decides a match."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from importlib import resources

from selfplay.contract import ExactSolver
from selfplay.environments.game import Game
from selfplay.evaluation.positions import Line, all_lines, random_lines

#: The listed openings of connect four: random plies, exactly drawn, distinct up to the mirror.
BALANCED_PLIES = 8
BALANCED_COUNT = 200
BALANCED_SEED = 20_240_705


@dataclass(frozen=True)
class Opening:
    """A line of play that a game is started with.

    line: the moves, from the start. value: under exact play, in utility units, from the point of view of seat 0
    (whoever is to move); None where it is not known.
    """

    line: Line
    value: float | None = None


def openings(game: Game, count: int, seed: int = 0, plies: int = 4) -> tuple[Opening, ...]:
    """Up to `count` openings for matches of `game`, the same ones for the same arguments.

    Those listed in the file that comes with the package where there is one (the first `count`; their order is random),
    else random ones of `plies` plies. A game that has fewer positions than asked for gives fewer.
    """
    stored = resources.files("selfplay.evaluation") / "data" / f"{game.spec.id}.openings.json"
    if "/" not in game.spec.id and stored.is_file():
        return from_json(stored.read_text())[:count]
    return random_openings(game, plies, count, seed)


def random_openings(game: Game, plies: int, count: int, seed: int) -> tuple[Opening, ...]:
    """Up to `count` distinct random openings of `plies` plies, topped up with shorter ones in games that end early."""
    lines: list[Line] = []
    while len(lines) < count and plies >= 0:
        lines += random_lines(game, plies, count - len(lines), seed)
        plies -= 1
    return tuple(Opening(line) for line in lines)


def all_openings(game: Game, max_plies: int, solver: ExactSolver) -> tuple[Opening, ...]:
    """Every position after at most `max_plies` plies, with its exact value. For small games."""
    return tuple(Opening(line, _value(game, solver, line)) for line in all_lines(game, max_plies))


def balanced_openings(game: Game, solver: ExactSolver, plies: int, count: int, seed: int) -> tuple[Opening, ...]:
    """`count` random openings of `plies` plies that are drawn under exact play, distinct up to symmetry.

    Fewer come back where a hundred tries an opening do not find as many.
    """
    lines = random_lines(game, plies, 100 * count, seed, up_to_symmetry=True)
    drawn = (Opening(line, 0.0) for line in lines if _value(game, solver, line) == 0.0)
    return tuple(itertools.islice(drawn, count))


def connect_four_openings(game: Game, solver: ExactSolver) -> tuple[Opening, ...]:
    """Makes the stored openings of connect four anew."""
    return balanced_openings(game, solver, BALANCED_PLIES, BALANCED_COUNT, BALANCED_SEED)


def to_json(listed: tuple[Opening, ...]) -> str:
    """Openings as a file, one a line: {"line": [3, 3, 2], "value": 0.0}."""
    rows = (json.dumps({"line": opening.line, "value": opening.value}) for opening in listed)
    return "[\n" + ",\n".join(rows) + "\n]\n"


def from_json(text: str) -> tuple[Opening, ...]:
    """What `to_json` wrote."""
    return tuple(Opening(tuple(row["line"]), row["value"]) for row in json.loads(text))


def _value(game: Game, solver: ExactSolver, line: Line) -> float:
    """The exact value for seat 0 of the position at the end of a line."""
    state = game.after(line)
    best = max(solver(state).values())
    return best if state.current_player() == 0 else 0.0 - best
