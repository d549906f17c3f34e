"""Lines of play to start from: random ones, and every position of a small game. Seeded, distinct, not terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyspiel

from selfplay.environments.game import Game

Line = tuple[int, ...]


def key(state: pyspiel.State) -> str:
    """Equal for states that show the same board with the same seat to act."""
    return f"{state.current_player()} {state}"


def mirrored(game: Game, line: Sequence[int]) -> list[Line]:
    """The line under the identity and under each symmetry of the game."""
    return [tuple(line), *(tuple(symmetry.actions[a] for a in line) for symmetry in game.spec.symmetries)]


def ends_at_once(state: pyspiel.State) -> bool:
    """Whether some legal move of the side to move ends the game, by a win or otherwise."""
    return any(state.child(action).is_terminal() for action in state.legal_actions())


def is_quiet(state: pyspiel.State) -> bool:
    """Whether the game goes on for at least two more moves: it has not ended, and no legal move ends it."""
    return not state.is_terminal() and not ends_at_once(state)


def random_lines(game: Game, plies: int, count: int, seed: int, *, up_to_symmetry: bool = False) -> list[Line]:
    """Up to `count` lines of `plies` uniformly random legal moves that lead to distinct, non-terminal positions.

    up_to_symmetry: a position and its images under the game's symmetries count as one.
    Fewer than `count` come back where the game has fewer such positions, or where 50 tries a line find no new one.
    The first n lines for a seed are the same whatever `count` is. Chance nodes are not supported.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    lines: list[Line] = []
    seen: set[str] = set()
    in_vain = 0
    while len(lines) < count and in_vain < 50 * count:
        in_vain += 1
        state = game.new_initial_state()
        line: list[int] = []
        while len(line) < plies and not state.is_terminal():
            legal = state.legal_actions()
            line.append(int(legal[rng.integers(len(legal))]))
            state.apply_action(line[-1])
        if state.is_terminal() or key(state) in seen:
            continue
        images = mirrored(game, line) if up_to_symmetry else [tuple(line)]
        seen.update(key(game.after(image)) for image in images)
        lines.append(tuple(line))
        in_vain = 0
    return lines


def all_lines(game: Game, max_plies: int | None = None, limit: int = 100_000) -> list[Line]:
    """One line to every reachable non-terminal position, fewest plies first, in order of actions.

    max_plies: positions after more moves than this are left out. Raises `ValueError` beyond `limit` positions.
    """
    lines: list[Line] = []
    seen: set[str] = set()
    layer: list[tuple[Line, pyspiel.State]] = [((), game.new_initial_state())]
    while layer:
        following: list[tuple[Line, pyspiel.State]] = []
        for line, state in layer:
            if state.is_terminal() or key(state) in seen:
                continue
            seen.add(key(state))
            lines.append(line)
            if len(lines) > limit:
                raise ValueError(f"{game.spec.id} has more than {limit} positions")
            if max_plies is None or len(line) < max_plies:
                following += [((*line, action), state.child(action)) for action in state.legal_actions()]
        layer = following
    return lines
