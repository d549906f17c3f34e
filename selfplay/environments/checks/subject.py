"""What the checks look at: a loaded environment and a few random games of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyspiel

from selfplay.contract import GameSpec
from selfplay.environments.checks.progress import progress
from selfplay.environments.game import Encoder, Game, load
from selfplay.environments.playthrough import choose, refused
from selfplay.errors import UserError

Array = np.ndarray[Any, Any]

#: What is done at one ply: an action (a chance outcome too), or an action per seat where all move at once.
Move = int | tuple[int, ...]

GAMES = 12
MIN_GAMES = 2
ENOUGH_PLIES = 1200
SECONDS = 1.0
MAX_PLIES = 5000


@dataclass(frozen=True)
class Subject:
    """An environment under test.

    games: random games, a list of moves each.
    finished: for each, whether it ended by the rules (it is cut where it is very long, or very slow).
    encoder: None where the game has no tensor or its seats move at once.
    """

    spec: GameSpec
    loaded: Game
    games: tuple[tuple[Move, ...], ...]
    finished: tuple[bool, ...]
    encoder: Encoder | None

    def walk(self, index: int) -> Iterator[tuple[int, pyspiel.State, Move | None]]:
        """Plays a game again on one state: (ply, state before the move, move), and at the end (plies, state, None)."""
        moves, at = self.games[index], progress()
        at.at(f"game {index}, moves:")
        state = self.loaded.new_initial_state()
        for ply, move in enumerate(moves):
            yield ply, state, move
            at.move(move)
            advance(state, move)
        yield len(moves), state, None

    def after(self, moves: Sequence[Move]) -> pyspiel.State:
        state = self.loaded.new_initial_state()
        for move in moves:
            advance(state, move)
        return state


def prepare(spec: GameSpec) -> Subject:
    """Loads `spec` and plays random games of it."""
    loaded = load(spec)
    if (reason := refused(loaded.game)) is not None:
        raise UserError(f"{spec.id} cannot be recorded: {reason}")
    games: list[tuple[Move, ...]] = []
    finished: list[bool] = []
    start = str(loaded.new_initial_state())
    deadline = time.monotonic() + SECONDS
    while len(games) < MIN_GAMES or (
        len(games) < GAMES and sum(map(len, games)) < ENOUGH_PLIES and time.monotonic() < deadline
    ):
        moves, ended = _random_game(loaded, len(games), time.monotonic() + SECONDS)
        games.append(tuple(moves))
        finished.append(ended)
        if (now := str(loaded.new_initial_state())) != start:
            raise UserError(f"after a game was played, a new game begins with {brief(now)} and not with {brief(start)}")
    if not games[0]:
        raise UserError("the initial state is terminal")
    kind = loaded.game.get_type()
    tensors = kind.provides_observation_tensor or kind.provides_information_state_tensor
    turns = kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
    return Subject(spec, loaded, tuple(games), tuple(finished), loaded.encoder if tensors and turns else None)


def advance(state: pyspiel.State, move: Move) -> None:
    if isinstance(move, tuple):
        state.apply_actions(list(move))
    else:
        state.apply_action(move)
    progress().step()


def _random_game(loaded: Game, seed: int, deadline: float) -> tuple[list[Move], bool]:
    state = loaded.new_initial_state()
    moves: list[Move] = []
    at = progress()
    at.at(f"game {seed}, moves:")
    for ply in range(MAX_PLIES):
        if state.is_terminal():
            return moves, True
        if time.monotonic() > deadline:
            break
        moves.append(random_move(state, seed, ply))
        at.move(moves[-1])
        advance(state, moves[-1])
    return moves, state.is_terminal()


def random_move(state: pyspiel.State, seed: int, ply: int) -> Move:
    if state.is_simultaneous_node():
        options = [sorted(state.legal_actions(seat)) for seat in range(state.num_players())]
        return tuple(o[choose(seed, ply, len(o), seat)] if o else 0 for seat, o in enumerate(options))
    if state.is_chance_node():
        legal = sorted(int(action) for action, chance in state.chance_outcomes() if chance > 0)
    else:
        legal = sorted(map(int, state.legal_actions()))
    if not legal:
        raise UserError(f"game {seed}, ply {ply}: legal_actions is empty although the state is not terminal")
    return legal[choose(seed, ply, len(legal))]


def player_moves(state: pyspiel.State) -> bool:
    """Whether one seat is to act (not chance, not all at once, not over)."""
    return bool(state.is_player_node())


def brief(value: object) -> str:
    """A value as one short line for a message."""
    text = " / ".join(str(value).splitlines())
    return text if len(text) <= 100 else text[:97] + "…"


def first_difference(a: Array, b: Array) -> str:
    """Where two arrays of one shape first differ: "[1, 0, 2] is 0 and 1"."""
    where = tuple(int(i) for i in np.argwhere(a != b)[0])
    return f"{list(where)} is {a[where]:g} and {b[where]:g}"
