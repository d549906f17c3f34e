"""Knights, who always tell the truth, and knaves, who always lie.

Problem:
    `difficulty` people named by different capital letters; each says one thing, and just one choice of knights agrees
    with all that is said. data: {"names": "AIV", "said": [["count", 1, 0], ["knave", 0, 0], ["same", 0, 2]]}: what each
    says, with people counted from 0. Asked: `A says 1 of us are knights. I says A is a knave. V says A and V are alike.
    Knights?`. "alike": both knights or both knaves; its opposite is "different". "1 of us": exactly so many of all.

Answer:
    What follows the last "#": the letters of all knights, in alphabetical order, as in `#IV`; `#-` if there are none.
    Before the "#" anything may be written. A text of more than 8192 characters has no answer.

Worked solution:
    One choice of knights after the other, each with the first person whom it contradicts, until one contradicts nobody:
    `-:I!V:A!I:A!IV:V!A:ok#A`. The alphabet is A-Z : ! - o k #.

Difficulty:
    The number of people, 2 to 6.

Version history:
    v0: first version.
    v1: the same questions; those that differ in names and in the order of people are on the same side of the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from random import Random
from string import ascii_uppercase
from typing import Any

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict

TEXTS = {
    "knight": "{x} is a knight",
    "knave": "{x} is a knave",
    "same": "{x} and {y} are alike",
    "differ": "{x} and {y} are different",
    "count": "{count} of us are knights",
}
Statement = Sequence[Any]
World = tuple[bool, ...]


def sample(seed: int, difficulty: float) -> Problem:
    rng, people = _shared.generator("knights", seed, difficulty), int(difficulty)
    names = "".join(sorted(rng.sample(ascii_uppercase, people)))
    while True:
        said = [_statement(rng, speaker, people) for speaker in range(people)]
        if sum(contradicted(said, world) is None for world in worlds(people)) == 1:
            return Problem(seed, difficulty, {"names": names, "said": said})


def _statement(rng: Random, speaker: int, people: int) -> list[Any]:
    kind = rng.choice(list(TEXTS))
    if kind == "count":
        return [kind, rng.randint(0, people), 0]
    if kind in ("same", "differ"):
        return [kind, *sorted(rng.sample(range(people), 2))]
    return [kind, rng.choice([person for person in range(people) if person != speaker]), 0]


def worlds(people: int) -> list[World]:
    """Every choice of knights."""
    return list(product((False, True), repeat=people))


def holds(statement: Statement, world: World) -> bool:
    kind, x, y = statement
    if kind == "count":
        return bool(sum(world) == x)
    if kind in ("same", "differ"):
        return bool((world[x] == world[y]) == (kind == "same"))
    return bool(world[x] == (kind == "knight"))


def contradicted(said: Sequence[Statement], world: World) -> int | None:
    """The first who tells the truth as a knave or lies as a knight; None if nobody does."""
    return next((i for i, statement in enumerate(said) if holds(statement, world) != world[i]), None)


def prompt(problem: Problem) -> list[Message]:
    names = problem.data["names"]
    told = []
    for speaker, (kind, x, y) in zip(names, problem.data["said"], strict=True):
        text = TEXTS[kind].format(count=x) if kind == "count" else TEXTS[kind].format(x=names[x], y=names[y])
        told.append(f"{speaker} says {text}. ")
    return [Message("user", "".join(told) + "Knights?")]


def _written(names: str, world: World) -> str:
    return "".join(name for name, knight in zip(names, world, strict=True) if knight) or "-"


def solve(problem: Problem) -> str:
    names, told = problem.data["names"], ""
    for world in worlds(len(names)):
        wrong = contradicted(problem.data["said"], world)
        if wrong is None:
            return f"{told}{_written(names, world)}:ok#{_written(names, world)}"
        told += f"{_written(names, world)}:{names[wrong]}!"
    raise ValueError("nobody can have said this")


def key(problem: Problem) -> str:
    """What is said, without names, by people in the order in which it comes first when sorted."""
    said = problem.data["said"]
    return str(min(_renamed(said, order) for order in permutations(range(len(said)))))


def _renamed(said: Sequence[Statement], order: Sequence[int]) -> list[tuple[Any, ...]]:
    """What is said where person `i` has become `order[i]`."""
    told: list[tuple[Any, ...]] = [()] * len(said)
    for speaker, (kind, x, y) in enumerate(said):
        if kind in ("same", "differ"):
            told[order[speaker]] = (kind, *sorted((order[x], order[y])))
        else:
            told[order[speaker]] = (kind, x if kind == "count" else order[x])
    return told


def gold(problem: Problem) -> str:
    return f"#{_shared.final(solve(problem))}"


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, _shared.final(gold(problem)))


SPEC = TaskSpec(
    id="knights-v1",
    summary="Who tells the truth, among people who always do and people who never do.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("knights-v0", "4390ccf42a4a56cdab94647b854fbe3199322482a4f052c408ee381c553c78c6"),
    difficulties=(2, 3, 4, 5, 6),
    isolated=False,
)
