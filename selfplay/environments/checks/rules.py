"""Checks of the rules: they repeat, what they say is consistent, and states are independent of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyspiel

from selfplay.environments.checks.aliases import told_apart
from selfplay.environments.checks.subject import Subject, advance, brief, first_difference, player_moves
from selfplay.environments.game import load

#: A problem or None, or (problem, remark).
Found = str | tuple[str | None, str | None] | None

TOLERANCE = 1e-6


def declaration(subject: Subject) -> str | None:
    """What the spec says of itself, and the game's own limits."""
    spec, loaded = subject.spec, subject.loaded
    if not spec.summary.strip() or "\n" in spec.summary:
        return f"summary must be one line of text, and is {spec.summary!r}"
    if not spec.licence.strip():
        return "licence is empty; write an SPDX id such as CC0-1.0"
    if spec.register is not None:
        spec.register()
    if str(load(spec).game) != loaded.string:
        return "register called a second time leads to another game; it must be idempotent"
    if str(pyspiel.load_game(loaded.string)) != loaded.string:
        return f"the game string {loaded.string!r} does not load the same game again"
    low, high = loaded.game.min_utility(), loaded.game.max_utility()
    if not (np.isfinite([low, high]).all() and low <= high and max(abs(low), abs(high)) > 0):
        return f"min_utility {low} and max_utility {high} must be finite, in order, and not both 0"
    if loaded.num_actions < 1:
        return f"num_distinct_actions is {loaded.num_actions}"
    return None


def lengths(subject: Subject) -> str | None:
    """The ply limit leaves room for whole games; `max_game_length` is not exceeded."""
    limit, longest = subject.spec.ply_limit, subject.loaded.game.max_game_length()
    plies = []
    for index in range(len(subject.games)):
        players = sum(not state.is_chance_node() for _, state, move in subject.walk(index) if move is not None)
        plies.append(players)
        if players > longest:
            return f"game {index} took {players} moves, but max_game_length is {longest}"
    if min(plies) > limit:
        return f"ply_limit is {limit}, but the shortest of {len(plies)} random games took {min(plies)} moves"
    if not any(subject.finished):
        return f"no random game ended within {max(plies)} moves"
    return None


def fields(state: pyspiel.State) -> Iterator[tuple[str, object]]:
    """Everything a replay must repeat."""
    kind = state.get_game().get_type()
    seats = range(state.num_players())
    yield "current_player", state.current_player()
    yield "is_terminal", state.is_terminal()
    yield "str(state)", str(state)
    yield "returns", tuple(state.returns())
    if state.is_terminal():
        return
    if state.is_chance_node():
        yield "chance_outcomes", tuple(state.chance_outcomes())
        return
    for seat in seats if state.is_simultaneous_node() else [state.current_player()]:
        legal = state.legal_actions(seat)
        yield f"legal_actions({seat})", tuple(legal)
        yield "action_to_string", tuple(state.action_to_string(seat, action) for action in legal)
    for seat in seats:
        if kind.provides_observation_tensor:
            yield f"observation_tensor({seat})", np.asarray(state.observation_tensor(seat), np.float32).tobytes()
        if kind.provides_information_state_tensor:
            tensor = np.asarray(state.information_state_tensor(seat), np.float32)
            yield f"information_state_tensor({seat})", tensor.tobytes()


def replay(subject: Subject) -> str | None:
    """The same moves lead through the same states: again, in a newly loaded game, and with two games in turn."""
    first = [[list(fields(state)) for _, state, _ in subject.walk(index)] for index in range(len(subject.games))]
    again = load(subject.spec)
    runs = [(i, [(i, again.new_initial_state())]) for i in range(len(subject.games))]
    pair = [(i, again.new_initial_state()) for i in (0, 1)]
    for states in (*(states for _, states in runs), pair):
        how = "with another game in turn" if states is pair else "a second time"
        for ply in range(max(len(subject.games[i]) for i, _ in states) + 1):
            for index, state in states:
                moves = subject.games[index]
                if ply > len(moves):
                    continue
                for (name, before), (_, now) in zip(first[index][ply], list(fields(state)), strict=False):
                    if before != now:
                        values = "" if isinstance(now, bytes) else f": {brief(before)}, then {brief(now)}"
                        return f"game {index}, ply {ply}: {name} differs when the moves are played {how}{values}"
                if ply < len(moves):
                    advance(state, moves[ply])
    return None


def legal_actions(subject: Subject) -> str | None:
    """Legal actions are ascending, distinct, in range and agree with the mask; a terminal state has none."""
    count = subject.loaded.num_actions
    for index in range(len(subject.games)):
        for ply, state, _ in subject.walk(index):
            at = f"game {index}, ply {ply}"
            if state.is_terminal():
                if state.legal_actions():
                    return f"{at}: the state is terminal, but legal_actions is {brief(state.legal_actions())}"
                if state.current_player() != pyspiel.PlayerId.TERMINAL:
                    return f"{at}: the state is terminal, but current_player is {state.current_player()}"
                continue
            if not player_moves(state):
                continue
            seat, legal = state.current_player(), state.legal_actions()
            if not 0 <= seat < subject.loaded.num_players:
                return f"{at}: current_player is {seat}, but there are {subject.loaded.num_players} seats"
            if not legal:
                return f"{at}: legal_actions is empty although the state is not terminal"
            if list(legal) != sorted(set(legal)):
                return f"{at}: legal_actions must ascend without repetition, and is {brief(legal)}"
            if legal[0] < 0 or legal[-1] >= count:
                return f"{at}: legal_actions {brief(legal)} leaves the range 0 to {count - 1} of num_distinct_actions"
            mask = np.flatnonzero(np.asarray(state.legal_actions_mask(seat))).tolist()
            if mask != list(legal):
                return f"{at}: legal_actions_mask allows {brief(mask)}, legal_actions {brief(legal)}"
    return None


def returns(subject: Subject) -> str | tuple[None, str | None]:
    """Returns are finite, within the declared utilities, the sum of the rewards, and sum to what the type says.

    Those between a loss and a win are worth a remark: an author may have scaled scores that nets would show better.
    """
    game, between = subject.loaded.game, None
    low, high, kind = game.min_utility(), game.max_utility(), game.get_type()
    for index in range(len(subject.games)):
        total = np.zeros(subject.loaded.num_players)
        for ply, state, move in subject.walk(index):
            values = np.asarray(state.returns(), np.float64)
            at = f"game {index}, ply {ply}"
            if values.shape != (subject.loaded.num_players,) or not np.isfinite(values).all():
                return f"{at}: returns must be one finite number per seat, and is {values.tolist()}"
            if ply > 0 and not state.is_chance_node():
                total += np.asarray(state.rewards(), np.float64)
            if not state.is_terminal():
                continue
            if values.min() < low - TOLERANCE or values.max() > high + TOLERANCE:
                return f"{at}: returns {values.tolist()} leave the range {low:g} to {high:g} of the utilities"
            if kind.utility == pyspiel.GameType.Utility.ZERO_SUM and abs(values.sum()) > TOLERANCE:
                return f"{at}: the game is declared zero-sum, but returns are {values.tolist()}"
            if move is None and np.abs(total - values).max() > TOLERANCE and not _has_chance(game):
                return f"{at}: rewards sum to {total.tolist()}, but returns are {values.tolist()}"
            whole = subject.loaded.outcomes is None or np.abs(values - np.round(values)).max() <= 1e-6
            if between is None and not whole:
                between = f"{at}: it ends in {values.tolist()}, between win, draw and loss; a net learns the mean of "
                between += "such results, and its chances of a win, a draw and a loss stand for nothing else"
    return None, between


def _has_chance(game: pyspiel.Game) -> bool:
    return bool(game.get_type().chance_mode != pyspiel.GameType.ChanceMode.DETERMINISTIC)


def clones(subject: Subject) -> str | None:
    """Playing on a clone leaves the state as it was, and the clone comes to where the state comes."""
    for index, moves in enumerate(subject.games[:3]):
        for ply, state, move in subject.walk(index):
            if move is None:
                continue
            before = list(fields(state))
            clone = state.clone()
            advance(clone, move)
            for (name, was), (_, now) in zip(before, list(fields(state)), strict=False):
                if was != now:
                    return f"game {index}, ply {ply}: {name} of a state changes when its clone is played on"
            if index == 0 and ply % 8 == 0:
                expected = subject.after(moves[: ply + 1])
                for (name, was), (_, now) in zip(fields(expected), list(fields(clone)), strict=False):
                    if was != now:
                        return f"game {index}, ply {ply}: {name} of a clone played on differs from the state played on"
    return None


def observations(subject: Subject) -> str | None:
    """The net input is finite, of the declared shape, and a new array every time."""
    if subject.encoder is None:
        return None
    for index in range(len(subject.games)):
        for ply, state, _ in subject.walk(index):
            if not player_moves(state):
                continue
            view = subject.encoder.encode(state)
            if not np.isfinite(view).all():
                return f"game {index}, ply {ply}: the observation of seat {state.current_player()} is not finite"
            kept = view.copy()
            twice = subject.encoder.encode(state)
            if not np.array_equal(kept, twice):
                return f"game {index}, ply {ply}: observed twice, entry {first_difference(kept, twice)}"
    return None


#: (what the report calls it, the check), in the order in which they are made.
RULES: tuple[tuple[str, Callable[[Subject], Found]], ...] = (
    ("declaration", declaration),
    ("game lengths", lengths),
    ("replays repeat", replay),
    ("legal actions", legal_actions),
    ("returns", returns),
    ("clones", clones),
    ("observations", observations),
    ("observations tell positions apart", told_apart),
)
