"""Replaying a recorded game, and the digest that makes replay mean something.

The digest is a sha256 over what the rules said along the game. `serialize()` or `history()` would only repeat the
actions; here a rule that changed shows, because the legal actions, the chance odds or the end come out otherwise.
Bytes, integers being int64 (in the byte order of every machine in use: little endian), tagged by one byte each:
- a decision: b"d", the seat to move, the number of legal actions, the legal actions ascending, the action taken;
- all seats at once: b"s", the number of seats, then for each seat the number of legal actions, those, and its action;
- chance: b"c", the number of outcomes, each outcome and round(1e9 * its probability), the outcome taken;
- the end: b"t" if the state is terminal, else b"o"; the length in bytes of `str(state)` in UTF-8, and it; and, if
  terminal, the number of seats and round(1e9 * return) of each.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfplay.episode.record import Episode, Step
from selfplay.episode.schema import CHANCE_SEAT, SIMULTANEOUS

if TYPE_CHECKING:
    import pyspiel

_BILLION = 1_000_000_000


class ReplayError(ValueError):
    """A recorded step that the rules do not allow; the message names the ply."""


class ReplayDigest:
    """Taken along while a game is played: one call before each step is applied, then `end`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def decision(self, seat: int, legal: Sequence[int] | np.ndarray, action: int) -> None:
        """`seat` chose `action` from the `legal` actions (ascending)."""
        if isinstance(legal, np.ndarray):
            legal = legal.tolist()
        self._parts.append(b"d" + array("q", [seat, len(legal), *legal, action]).tobytes())

    def simultaneous(self, legal: Sequence[Sequence[int]], joint: Sequence[int]) -> None:
        """All seats chose at once; `legal[seat]` ascending, `joint[seat]` the action."""
        flat = [len(legal)]
        for actions, action in zip(legal, joint, strict=True):
            flat += [len(actions), *actions, action]
        self._parts.append(b"s" + array("q", flat).tobytes())

    def chance(self, outcomes: Sequence[tuple[int, float]], outcome: int) -> None:
        """Chance drew `outcome` from (outcome, probability) pairs."""
        flat = [len(outcomes)]
        for value, probability in outcomes:
            flat += [value, round(probability * _BILLION)]
        self._parts.append(b"c" + array("q", [*flat, outcome]).tobytes())

    def step(self, state: pyspiel.State, action: int, joint: Sequence[int] | None = None) -> None:
        """The step about to be applied to `state`, whatever kind of node it is."""
        if state.is_chance_node():
            self.chance(state.chance_outcomes(), action)
        elif state.is_simultaneous_node():
            assert joint is not None
            self.simultaneous([state.legal_actions(seat) for seat in range(state.num_players())], joint)
        else:
            self.decision(state.current_player(), state.legal_actions(), action)

    def end(self, state: pyspiel.State) -> str:
        """Closes the digest with the last state; returns it in hex."""
        terminal = state.is_terminal()
        text = str(state).encode()
        self._parts.append((b"t" if terminal else b"o") + array("q", [len(text)]).tobytes() + text)
        if terminal:
            returns = [round(value * _BILLION) for value in state.returns()]
            self._parts.append(array("q", [len(returns), *returns]).tobytes())
        return hashlib.sha256(b"".join(self._parts)).hexdigest()


def advance(state: pyspiel.State, step: Step, ply: int = 0) -> None:
    """Applies a recorded step. Raises `ReplayError` where the rules do not allow it."""
    if state.is_terminal():
        raise ReplayError(f"step {ply}: the game was over before it")
    if state.is_simultaneous_node():
        if step.joint is None or step.seat != SIMULTANEOUS:
            raise ReplayError(f"step {ply}: all seats move at once here, and the record holds seat {step.seat}")
        for seat, action in enumerate(step.joint):
            legal = state.legal_actions(seat)
            if legal and action not in legal:
                raise ReplayError(f"step {ply}: action {action} is not legal for seat {seat}")
        state.apply_actions(list(step.joint))
        return
    seat = CHANCE_SEAT if state.is_chance_node() else state.current_player()
    if step.seat != seat:
        raise ReplayError(f"step {ply}: seat {seat} is to move, and the record holds seat {step.seat}")
    if step.action not in state.legal_actions():
        raise ReplayError(f"step {ply}: action {step.action} is not legal")
    state.apply_action(step.action)


def replay(game: pyspiel.Game, steps: Iterable[Step]) -> Iterator[tuple[int, pyspiel.State, Step]]:
    """Yields (index of the step, state before it, the step). The same state object goes on: clone it to keep it."""
    state = game.new_initial_state()
    for ply, step in enumerate(steps):
        yield ply, state, step
        advance(state, step, ply)


def final_state(game: pyspiel.Game, steps: Iterable[Step]) -> pyspiel.State:
    """The state after all steps."""
    state = game.new_initial_state()
    for ply, step in enumerate(steps):
        advance(state, step, ply)
    return state


def replay_digest(game: pyspiel.Game, steps: Iterable[Step]) -> str:
    """What the rules of `game` say along these steps. Raises `ReplayError` for a step they do not allow."""
    return replayed(game, steps)[0]


def replayed(game: pyspiel.Game, steps: Iterable[Step]) -> tuple[str, pyspiel.State]:
    """The replay digest, and the last state."""
    digest, state = ReplayDigest(), game.new_initial_state()
    for ply, step in enumerate(steps):
        if not state.is_terminal() and (step.joint is not None or not state.is_simultaneous_node()):
            digest.step(state, step.action, step.joint)
        advance(state, step, ply)
    return digest.end(state), state


@dataclass(frozen=True)
class Moment:
    """What a seat saw when it was to act, and what it did; None at the end of the game.

    observation: the seat's information state, or its observation where the game has no information state.
    """

    observation: str
    action: int | None


@dataclass(frozen=True)
class SeatView:
    """An episode as one seat lived it: nothing of hidden cards, of others' hidden actions, of chance or of searches.

    moments: one for each of its own decisions (numbered by these alone: the number of hidden plies would tell), and
      the last for the end. seat_return: its own, utility units; None without an outcome.
    """

    seat: int
    moments: tuple[Moment, ...]
    seat_return: float | None


def seat_view(game: pyspiel.Game, episode: Episode, seat: int) -> SeatView:
    """The episode (a game) as `seat` saw it."""
    if episode.game is None:
        raise ValueError(f"episode {episode.episode_id} is not a game")
    if not 0 <= seat < episode.seats:
        raise ValueError(f"seat must lie in 0..{episode.seats - 1}, got {seat}")
    kind = game.get_type()

    def seen(state: pyspiel.State) -> str:
        if kind.provides_information_state_string:
            return str(state.information_state_string(seat))
        return str(state.observation_string(seat))

    moments = []
    state = game.new_initial_state()
    for ply, step in enumerate(episode.game.steps):
        if step.seat == seat:
            moments.append(Moment(seen(state), step.action))
        elif step.joint is not None and state.legal_actions(seat):
            moments.append(Moment(seen(state), step.joint[seat]))
        advance(state, step, ply)
    if not state.is_chance_node():
        moments.append(Moment(seen(state), None))
    return SeatView(seat, tuple(moments), None if episode.returns is None else episode.returns[seat])
