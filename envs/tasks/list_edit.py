"""A short list of digits after a sequence of edits.

Problem:
    Four to seven digits and `difficulty` edits: "sort" (ascending), "reverse", "rotate" (the first goes to the end),
    "swap" (the ends change places), "drop" (the first goes away) and "append x" (x, a digit, comes at the end). The
    list always has two to nine digits. data: {"digits": "3142", "edits": ["sort", "append 7"]}. Asked:
    `3142;sort;append 7=`.

Answer:
    What follows the last "#": exactly the digits of the list at the end, as in `#12347`. Before the "#" anything may be
    written. A text of more than 8192 characters has no answer.

Worked solution:
    The list after each edit, as in `1234;12347#12347`. The alphabet is 0-9 ; #.

Difficulty:
    The number of edits, 1 to 16.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Iterator

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("list_edit", seed, difficulty)
    length = rng.randint(4, 7)
    digits, edits = "".join(rng.choices("0123456789", k=length)), []
    for _ in range(int(difficulty)):
        kinds = ["sort", "reverse", "rotate", "swap", *["drop"] * (length > 2), *["append"] * (length < 9)]
        kind = rng.choice(kinds)
        length += (kind == "append") - (kind == "drop")
        edits.append(f"append {rng.randrange(10)}" if kind == "append" else kind)
    return Problem(seed, difficulty, {"digits": digits, "edits": edits})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", ";".join([problem.data["digits"], *problem.data["edits"]]) + "=")]


def edited(digits: str, edit: str) -> str:
    if edit == "sort":
        return "".join(sorted(digits))
    if edit == "reverse":
        return digits[::-1]
    if edit == "rotate":
        return digits[1:] + digits[0]
    if edit == "swap":
        return digits[-1] + digits[1:-1] + digits[0]
    return digits[1:] if edit == "drop" else digits + edit.removeprefix("append ")


def lists(problem: Problem) -> Iterator[str]:
    """The list after each edit."""
    digits = problem.data["digits"]
    for edit in problem.data["edits"]:
        digits = edited(digits, edit)
        yield digits


def gold(problem: Problem) -> str:
    return f"#{list(lists(problem))[-1]}"


def solve(problem: Problem) -> str:
    return ";".join(lists(problem)) + gold(problem)


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, _shared.final(gold(problem)))


SPEC = TaskSpec(
    id="list_edit-v0",
    summary="A short list of digits after a sequence of edits.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    difficulties=(1, 2, 3, 4, 5, 6, 8, 10, 12, 16),
    isolated=False,
)
