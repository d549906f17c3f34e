"""The sum of two numbers, with the carries.

Problem:
    Two summands of `difficulty` digits each; at difficulty 1 the first has two, so that there are 900 questions. data:
    {"a": "27", "b": "95"}, as text, because not every reader of JSON has integers of 24 digits. Asked: `27+95=`.

Answer:
    What follows the last "#": exactly the digits of the sum, without leading zeros, sign or spaces, as in `#122`.
    Before the "#" anything may be written. A text of more than 8192 characters has no answer.

Worked solution:
    The columns from right to left, each as digit + digit + carry = sum of the column; the tens of that are the next
    carry. For 27+95: `7+5+0=12,2+9+1=12#122`. The alphabet is 0-9 + = , #.

Difficulty:
    The number of digits, 1 to 24.

Version history:
    v0: first version.
    v1: the same questions; a sum and its mirror image, such as 27+95 and 95+27, are on the same side of the split.
"""

from __future__ import annotations

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("addition", seed, difficulty)
    digits = int(difficulty)
    a, b = _shared.of_length(rng, max(2, digits)), _shared.of_length(rng, digits)
    return Problem(seed, difficulty, {"a": str(a), "b": str(b)})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['a']}+{problem.data['b']}=")]


def total(problem: Problem) -> str:
    return str(int(problem.data["a"]) + int(problem.data["b"]))


def key(problem: Problem) -> str:
    return _shared.commuted(problem.data["a"], "+", problem.data["b"])


def gold(problem: Problem) -> str:
    return f"#{total(problem)}"


def solve(problem: Problem) -> str:
    a, b = problem.data["a"], problem.data["b"]
    width = max(len(a), len(b))
    steps, carry = [], 0
    for one, other in zip(reversed(a.zfill(width)), reversed(b.zfill(width)), strict=True):
        column = int(one) + int(other) + carry
        steps.append(f"{one}+{other}+{carry}={column}")
        carry = column // 10
    return ",".join(steps) + gold(problem)


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, total(problem))


SPEC = TaskSpec(
    id="addition-v1",
    summary="The sum of two numbers, column by column.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("addition-v0", "125ed6a3bdef4b746afaede4f6a89fb563312415145bc881e9d457ffae12dd53"),
    difficulties=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 24),
    isolated=False,
)
