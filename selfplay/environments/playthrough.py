"""The golden playthrough of a game: one random game, written out for people, that fixes its rules.

Two installations that write the same playthrough play by the same rules as far as this game reaches; a changed rule,
observation or action number shows as a difference in a line. It works for every OpenSpiel game that has states: chance
nodes, simultaneous moves, hidden information and any number of seats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyspiel

from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.errors import UserError

FORMAT = 1
MAX_PLIES = 2000
SHOWN_EVERY = 10
SMALL = 80


def ruleset_digest(spec: GameSpec, step: Callable[[], None] = lambda: None) -> str:
    """sha256 (hexadecimal) of the golden playthrough and, where the rules themselves are in Python, of their file.

    A file that only declares a game of OpenSpiel (its drawing, its symmetries) does not count. step: called after each
    line of the playthrough.
    """
    digest = hashlib.sha256()
    for line in _lines(spec, 0):
        digest.update(f"{line.rstrip()}\n".encode())
        step()
    if spec.register is not None:
        digest.update(registry.source_of(spec).digest.encode())
    return digest.hexdigest()


def playthrough(spec: GameSpec, seed: int = 0) -> str:
    """One game of random play as text, the same in every process and on every machine.

    At ply t the choice among n possibilities (in ascending order) is the big-endian number sha256("seed:t") modulo n;
    seats that move at once take "seed:t:seat". Small boards are written out, larger ones at the start, every tenth ply
    and the end, and as their digest elsewhere. Raises `UserError` for games that cannot be replayed from their actions.
    """
    return "".join(f"{line.rstrip()}\n" for line in _lines(spec, seed))


def refused(game: pyspiel.Game) -> str | None:
    """Why episodes of this game cannot be replayed from their actions, in words; None if they can."""
    kind = game.get_type()
    if kind.dynamics == pyspiel.GameType.Dynamics.MEAN_FIELD:
        return "it is a mean-field game"
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        return "its chance is sampled inside the rules, so its episodes cannot be replayed from their actions"
    return None


def choose(seed: int, ply: int, count: int, seat: int | None = None) -> int:
    """A number from 0 to `count` - 1 that depends on nothing but the arguments."""
    name = f"{seed}:{ply}" if seat is None else f"{seed}:{ply}:{seat}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()) % count


def short_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as runs: [0, 1, 2, 5] is "0-2 5"."""
    if not numbers:
        return "none"
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), numbers[-1]]
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _lines(spec: GameSpec, seed: int) -> Iterator[str]:
    loaded = load(spec)
    game = loaded.game
    if (reason := refused(game)) is not None:
        raise UserError(f"{spec.id} cannot be recorded: {reason}")
    kind = game.get_type()
    yield f"# Playthrough of {spec.id}"
    yield ""
    yield f"format: {FORMAT}"
    yield f"game: {loaded.string}"
    yield f"seed: {seed}"
    yield f"players: {loaded.num_players}"
    yield f"actions: {loaded.num_actions}"
    yield f"utilities: {game.min_utility():g} to {game.max_utility():g}"
    yield f"longest game: {game.max_game_length()}"
    yield f"kind: {kind.dynamics.name}, {kind.chance_mode.name}, {kind.information.name}, {kind.utility.name}"
    if kind.provides_observation_tensor:
        yield f"observation: {list(game.observation_tensor_shape())}"
    if kind.provides_information_state_tensor:
        yield f"information state: {list(game.information_state_tensor_shape())}"
    state = loaded.new_initial_state()
    for ply in range(MAX_PLIES):
        yield ""
        yield f"## ply {ply}"
        yield from _state(state, ply % SHOWN_EVERY == 0 or state.is_terminal())
        if state.is_terminal():
            return
        yield _advance(state, seed, ply)
    yield ""
    yield f"cut after {MAX_PLIES} plies"


def _state(state: pyspiel.State, shown: bool) -> Iterator[str]:
    text = str(state)
    if shown or len(text) <= SMALL:
        yield from (f"  | {line}" for line in text.splitlines())
    else:
        yield f"state: {short_digest(text.encode())}"
    if state.is_terminal():
        yield f"returns: {_numbers(state.returns())}"
    if state.is_chance_node():
        yield "seat to act: chance"
        yield "outcomes: " + " ".join(f"{action}={chance:.6g}" for action, chance in sorted(state.chance_outcomes()))
        return
    seats = range(state.num_players())
    if state.is_simultaneous_node():
        yield "seat to act: all"
        for seat in seats:
            yield f"legal for seat {seat}: {ranges(sorted(state.legal_actions(seat)))}"
    elif not state.is_terminal():
        yield f"seat to act: {state.current_player()}"
        yield f"legal: {ranges(sorted(state.legal_actions()))}"
    kind = state.get_game().get_type()
    for name, provided, read in (
        ("observation", kind.provides_observation_tensor, state.observation_tensor),
        ("information state", kind.provides_information_state_tensor, state.information_state_tensor),
    ):
        if provided and not state.is_terminal():
            yield f"{name}: " + " ".join(short_digest(np.asarray(read(s), "<f4").tobytes()) for s in seats)


def _advance(state: pyspiel.State, seed: int, ply: int) -> str:
    """Plays on at random; the line that says what was played."""
    if state.is_simultaneous_node():
        joint = []
        for seat in range(state.num_players()):
            legal = sorted(state.legal_actions(seat))
            joint.append(legal[choose(seed, ply, len(legal), seat)] if legal else 0)
        state.apply_actions(joint)
        return f"played: {' '.join(map(str, joint))}"
    if state.is_chance_node():
        legal = sorted(action for action, chance in state.chance_outcomes() if chance > 0)
    else:
        legal = sorted(state.legal_actions())
    action = legal[choose(seed, ply, len(legal))]
    written = state.action_to_string(state.current_player(), action)
    state.apply_action(action)
    return f'played: {action} "{written}"'


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value + 0.0:g}" for value in values)
