"""What an environment does, written down by one process and compared by another, in which much is different.

The same seeds and the same moves must give the same in every process: on another day, after other games and problems,
in another order, with another order of sets, in another folder. Otherwise an archived episode cannot be verified.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyspiel

from selfplay.contract import EnvSpec, GameSpec, TaskSpec
from selfplay.environments.checks.progress import progress
from selfplay.environments.checks.rules import fields
from selfplay.environments.checks.steps import here
from selfplay.environments.checks.subject import Move, Subject, advance, brief, prepare, random_move
from selfplay.environments.game import load
from selfplay.environments.task import Task, said

#: Problems of a level that are compared.
SEEDS = 6
#: Other games that are played, and other problems of a level that are made, before the order is another.
_OTHER_GAMES, _OTHER_SECONDS, _OTHER_PROBLEMS, _FIRST_SEED = 200, 0.8, 8, 500_000
_process_time = time.process_time  # the clocks of the module may be shifted

#: One thing that must be the same: its name, its value for people, and a digest of the value.
Field = list[str]


def record(spec: EnvSpec) -> Any:
    """What `differs` compares: plain values. Raises what the author's code raises."""
    if isinstance(spec, TaskSpec):
        return [[seed, level, list(_problem(spec, seed, level))] for seed, level in _wanted(spec)]
    subject = prepare(spec)
    return [
        [list(moves), [list(_state(state)) for _, state, _ in subject.walk(index)]]
        for index, moves in enumerate(subject.games)
    ]


def differs(spec: EnvSpec, recorded: Any, reorder: bool) -> str | None:
    """The first difference from what another process has recorded. reorder: after others, in another order."""
    if isinstance(spec, TaskSpec):
        return _problems_differ(spec, recorded, reorder)
    games = [([_move(move) for move in moves], states) for moves, states in recorded]
    if reorder:
        return _games_differ_in_turn(spec, games)
    subject = prepare(spec)  # as the other process did
    return _games_differ(subject, games)


def _games_differ(subject: Subject, games: Sequence[tuple[list[Move], list[list[Field]]]]) -> str | None:
    for index, (moves, states) in enumerate(games):
        state = subject.loaded.new_initial_state()
        for ply in range(len(moves) + 1):
            if (found := _compared(index, ply, moves, states, state)) is not None:
                return found
            if ply < len(moves):
                advance(state, moves[ply])
    return None


def _games_differ_in_turn(spec: GameSpec, games: Sequence[tuple[list[Move], list[list[Field]]]]) -> str | None:
    """After other games: all games side by side, the last first."""
    loaded = load(spec)
    until = _process_time() + _OTHER_SECONDS
    for seed in range(_FIRST_SEED, _FIRST_SEED + _OTHER_GAMES):
        progress().at(f"in other random games, with the seed {seed}")
        state, ply = loaded.new_initial_state(), 0
        while not state.is_terminal() and _process_time() < until:
            advance(state, random_move(state, seed, ply))
            ply += 1
    states: dict[int, pyspiel.State] = {i: loaded.new_initial_state() for i in reversed(range(len(games)))}
    for ply in range(max(len(moves) for moves, _ in games) + 1):
        for index, state in states.items():
            moves, recorded = games[index]
            if ply > len(moves):
                continue
            if (found := _compared(index, ply, moves, recorded, state)) is not None:
                return found
            if ply < len(moves):
                advance(state, moves[ply])
    return None


def _compared(
    index: int, ply: int, moves: Sequence[Move], recorded: list[list[Field]], state: pyspiel.State
) -> str | None:
    progress().at(f"game {index}, ply {ply}")
    difference = _difference(recorded[ply], list(_state(state)))
    if difference is None:
        return None
    played = " ".join(str(move).replace(", ", ",") for move in moves[:ply]) or "(none)"
    return f"game {index}, ply {ply}: {difference} (after the moves {played})"


def _difference(before: Sequence[Field], now: Sequence[Field]) -> str | None:
    for (name, was, digest), (_, is_, other) in zip(before, now, strict=False):
        if digest != other:
            return f"{name} differs" + (f": {was}, then {is_}" if was != is_ else "")
    return None


def _move(plain: Any) -> Move:
    return tuple(plain) if isinstance(plain, list) else int(plain)


def _state(state: pyspiel.State) -> Iterator[Field]:
    for name, value in fields(state):
        if isinstance(value, bytes):
            yield [name, "", hashlib.sha256(value).hexdigest()]
        else:
            yield _field(name, str(value))


def _field(name: str, text: str) -> Field:
    return [name, brief(text), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]


def _wanted(spec: TaskSpec) -> list[tuple[int, float]]:
    return [(seed, level) for level in spec.difficulties for seed in range(SEEDS)]


def _problems_differ(spec: TaskSpec, recorded: Any, reorder: bool) -> str | None:
    if reorder:
        for level in reversed(spec.difficulties):
            for seed in range(_FIRST_SEED, _FIRST_SEED + _OTHER_PROBLEMS):
                list(_problem(spec, seed, level))
    for seed, level, before in reversed(recorded) if reorder else recorded:
        difference = _difference(before, list(_problem(spec, seed, level)))
        if difference is not None:
            return f"seed {seed}, difficulty {level:g}: {difference}"
    return None


def _problem(spec: TaskSpec, seed: int, level: float) -> Iterator[Field]:
    """All that a task says of one problem."""
    progress().at(f"seed {seed}, difficulty {level:g}")
    task = Task(here(spec))
    posed = task.pose(seed, level)
    yield _field("the prompt", "\n".join(f"{one.role}: {one.content}" for one in posed.messages))
    yield _field("the digest of the key and the prompt", posed.digest)
    yield _field("the data of sample", json.dumps(dict(posed.problem.data), sort_keys=True))
    for name, write in (("gold", spec.gold), ("solve", spec.solve)):
        if write is not None:
            make: Callable[[Any], str] = task.gold if name == "gold" else task.solution
            text = make(posed.problem)
            yield _field(f"the text of {name}", text)
            yield _field(f"the verdict on {name}", str(task.judge(posed.problem, said(posed, [text]))))
    if spec.play is not None:
        spoken = task.solved(posed)
        yield _field("the dialogue of the solvers", "\n".join(turn.text for turn in spoken.turns))
        yield _field("the verdict on it", str(task.judge(posed.problem, spoken)))
