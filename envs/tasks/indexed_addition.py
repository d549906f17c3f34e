"""The sum of two numbers whose digits are each named by a letter for their place.

Problem:
    Two summands of `difficulty` digits each; at difficulty 1 the first has two. Digits are written from the units up,
    each after the letter of its place; the units have a random letter, places above them the letters that follow it, so
    that every letter is met at every length. data: {"a": "27", "b": "95", "units": "k"}, numbers as text, because not
    every reader of JSON has integers of 24 digits. Asked: `k7l2+k5l9=`.

Answer:
    What follows the last "#": exactly the digits of the sum from the units up, each after the letter of its place, with
    no zero at the highest place, no sign and no spaces, as in `#k2l2m1` for 122. Before the "#" anything may be
    written. A text of more than 8192 characters has no answer.

Worked solution:
    The columns from the units up, each as its letter and the sum of both digits and the carry, written with two digits,
    the first of which is the next carry; then the sum. For 27+95: `k12l12#k2l2m1`. The alphabet is a-z 0-9 + = #.

Difficulty:
    The number of digits, 1 to 24.

Source:
    "What algorithms can transformers learn?" (arXiv:2310.16028) names digits by their places, as index hints: to find a
    digit by its name carries over to lengths that were never seen, to count up to it does not.

Version history:
    v0: first version.
    v1: the same questions; a sum is on one side of the split, with whatever letters and in whatever order it is
        written.
"""

from __future__ import annotations

from string import ascii_lowercase as LETTERS

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("indexed addition", seed, difficulty)
    digits = int(difficulty)
    a, b = _shared.of_length(rng, max(2, digits)), _shared.of_length(rng, digits)
    units = LETTERS[rng.randrange(len(LETTERS) - max(2, digits))]
    return Problem(seed, difficulty, {"a": str(a), "b": str(b), "units": units})


def named(number: str, units: str) -> str:
    """The digits of a number from the units up, each after the letter of its place."""
    first = LETTERS.index(units)
    places = LETTERS[first : first + len(number)]
    return "".join(letter + digit for letter, digit in zip(places, reversed(number), strict=True))


def prompt(problem: Problem) -> list[Message]:
    a, b, units = (problem.data[key] for key in ("a", "b", "units"))
    return [Message("user", f"{named(a, units)}+{named(b, units)}=")]


def total(problem: Problem) -> str:
    return str(int(problem.data["a"]) + int(problem.data["b"]))


def key(problem: Problem) -> str:
    return _shared.commuted(problem.data["a"], "+", problem.data["b"])


def gold(problem: Problem) -> str:
    return f"#{named(total(problem), problem.data['units'])}"


def solve(problem: Problem) -> str:
    a, b, first = problem.data["a"], problem.data["b"], LETTERS.index(problem.data["units"])
    width = max(len(a), len(b))
    worked, carry = [], 0
    for place, (one, other) in enumerate(zip(reversed(a.zfill(width)), reversed(b.zfill(width)), strict=True)):
        column = int(one) + int(other) + carry
        worked.append(f"{LETTERS[first + place]}{column:02}")
        carry = column // 10
    return "".join(worked) + gold(problem)


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, named(total(problem), problem.data["units"]))


SPEC = TaskSpec(
    id="indexed_addition-v1",
    summary="The sum of two numbers whose places have names.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("indexed_addition-v0", "77b40f9d25c3e41bedd4ee59dab7c18bafd069b1ba9c7664553a262790c3988c"),
    difficulties=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 24),
    isolated=False,
)
