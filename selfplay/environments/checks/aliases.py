"""States that look the same to the net must be the same to the search: it has nothing else to tell them apart.

Different ways to the same net input are collected: in all short games, in random ones, and in random ones in which a
seat plays two of its moves in the other order. From both states the same moves are then played on: they must allow the
same moves, end together, and end in the same returns.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import pyspiel

from selfplay.environments.checks.progress import progress
from selfplay.environments.checks.subject import Move, Subject, advance, brief, player_moves, random_move
from selfplay.environments.playthrough import choose

Moves = tuple[Move, ...]

#: Short games are followed to so many positions; so many random games are played besides, all within so much time.
_SHORT, _RANDOM_GAMES, _SECONDS = 800, 50, 0.4
#: Exchanges of two moves that are tried in each random game.
_EXCHANGES = 6
#: Pairs of ways to one net input that are played on, plies for which they are, moves tried one by one where there are
#: no more of them.
_PAIRS, _PLIES, _EACH_MOVE = 150, 300, 12
#: Random games are numbered from here, so that they differ from those of the other checks.
_FIRST_SEED = 1_000


def told_apart(subject: Subject) -> tuple[str | None, str | None]:
    """(fault, remark). Of games of perfect information: positions with the same net input go on alike.

    A remark where the rules are OpenSpiel's own: what they show, such as no pass before this move in go, is not the
    author's to change.
    """
    encoder, kind = subject.encoder, subject.loaded.game.get_type()
    if encoder is None or kind.information != pyspiel.GameType.Information.PERFECT_INFORMATION:
        return None, None
    seen: dict[tuple[bytes, int], tuple[Moves, pyspiel.State]] = {}
    pairs, until = 0, time.process_time() + _SECONDS
    for moves, state in _positions(subject):
        if pairs >= _PAIRS or time.process_time() >= until:
            break
        if not player_moves(state):
            continue
        # With two seats the net does not hear who is to move, unless the input says so.
        seat = 0 if subject.loaded.num_players == 2 else state.current_player()
        key = encoder.encode(state).tobytes(), seat
        if key not in seen:
            seen[key] = moves, state.clone()
            continue
        others, other = seen[key]
        if others == moves:
            continue
        pairs += 1
        difference = _difference(other, state, pairs)
        if difference is not None:
            progress().at("")
            found = (
                f"after the moves {_written(others)} and after the moves {_written(moves)} the net is shown the same, "
                f"but {difference}"
            )
            if subject.spec.register is None:
                return None, f"{found}; OpenSpiel's observation does not show why, so the net cannot know"
            return f"{found}; let the observation show what makes the difference", None
    return None, None


def _positions(subject: Subject) -> Iterator[tuple[Moves, pyspiel.State]]:
    """(moves, the state after them): all of the shortest games, then along random ones."""
    at = progress()
    at.at("in short games")
    waiting: deque[tuple[Moves, pyspiel.State]] = deque([((), subject.loaded.new_initial_state())])
    found = 1
    while waiting:
        moves, state = waiting.popleft()
        yield moves, state
        if state.is_terminal() or found >= _SHORT:
            continue
        for action in state.legal_actions():
            child = state.clone()
            at.at(f"moves: {_written((*moves, action))}")
            advance(child, action)
            waiting.append(((*moves, action), child))
            found += 1
    for seed in range(_FIRST_SEED, _FIRST_SEED + _RANDOM_GAMES):
        state = subject.loaded.new_initial_state()
        played: Moves = ()
        at.at("moves:")
        for ply in range(_PLIES):
            if state.is_terminal():
                break
            yield played, state
            move = random_move(state, seed, ply)
            at.move(move)
            advance(state, move)
            played = (*played, move)
        for trial in range(_EXCHANGES if len(played) > 3 else 0):
            first = choose(seed, trial, len(played) - 3)
            second = first + 2 + 2 * choose(seed, trial, (len(played) - 2 - first) // 2, 1)
            yield from _exchanged(subject, played, first, second)


def _exchanged(subject: Subject, moves: Moves, first: int, second: int) -> Iterator[tuple[Moves, pyspiel.State]]:
    """The position after both of two moves in the other order, where that is legal."""
    order = [*moves[: second + 1]]
    order[first], order[second] = order[second], order[first]
    state, at = subject.loaded.new_initial_state(), progress()
    at.at("moves:")
    for move in order:
        if state.is_terminal() or move not in state.legal_actions():
            return
        at.move(move)
        advance(state, move)
    if not state.is_terminal():
        yield tuple(order), state


def _difference(one: pyspiel.State, other: pyspiel.State, seed: int) -> str | None:
    """How two states that look the same go on differently: after one move each, and in a random game."""
    swapped = one.current_player() != other.current_player()
    if (found := _differs(one, other, swapped)) is not None:
        return found
    legal = one.legal_actions()
    starts = [(action,) for action in legal] if len(legal) <= _EACH_MOVE else []
    for start in (*starts, ()):
        a, b, played = one.clone(), other.clone(), []
        for ply in range(1 if start else _PLIES):
            if a.is_terminal():
                break
            move = start[0] if start else random_move(a, seed, ply)
            advance(a, move)
            advance(b, move)
            played.append(move)
            if (found := _differs(a, b, swapped)) is not None:
                return f"when both go on with {_written(tuple(played))}, {found}"
    return None


def _differs(a: pyspiel.State, b: pyspiel.State, swapped: bool) -> str | None:
    """What two states differ in. swapped: a seat of one stands for the other seat of the other."""
    ends = [state.is_terminal() for state in (a, b)]
    if ends[0] != ends[1]:
        return f"the {'first' if ends[0] else 'second'} game is over and the other is not"
    if ends[0]:
        first, second = list(a.returns()), list(b.returns())
        if not np.allclose(first, second[::-1] if swapped else second):
            return f"the returns are {first} and {second}"
        return None
    if a.is_chance_node() != b.is_chance_node():
        return "chance moves in one and not in the other"
    if a.is_chance_node():
        chances = [dict(state.chance_outcomes()) for state in (a, b)]
        return None if chances[0] == chances[1] else f"chance_outcomes are {brief(chances[0])} and {brief(chances[1])}"
    if swapped == (a.current_player() == b.current_player()):
        return f"current_player is {a.current_player()} and {b.current_player()}"
    legal = [list(state.legal_actions()) for state in (a, b)]
    if legal[0] != legal[1]:
        return f"legal_actions are {brief(legal[0])} and {brief(legal[1])}"
    return None


def _written(moves: Moves) -> str:
    return " ".join(str(move).replace(", ", ",") for move in moves) or "(none)"
