"""The product of two numbers, with the partial products.

Problem:
    Two factors of `difficulty` digits each; at difficulty 1 the first has two, so that there are 900 questions. data:
    {"a": "27", "b": "34"}. Asked: `27*34=`.

Answer:
    What follows the last "#": exactly the digits of the product, without leading zeros, sign or spaces, as in `#918`.
    Before the "#" anything may be written. A text of more than 8192 characters has no answer.

Worked solution:
    For each digit of the second factor, from the right: the digits of the first factor from the right, each as
    digit * digit + carry = product; then the partial product with its zeros; then the sum so far. For 27*34:
    `7*4+0=28,2*4+2=10,108;0+108=108;7*3+0=21,2*3+2=8,810;108+810=918#918`. The alphabet is 0-9 * + = , ; #.

Difficulty:
    The number of digits, 1 to 6.

Version history:
    v0: first version.
    v1: the same questions; a product and its mirror image, such as 27*34 and 34*27, are on the same side of the split.
"""

from __future__ import annotations

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("multiplication", seed, difficulty)
    digits = int(difficulty)
    a, b = _shared.of_length(rng, max(2, digits)), _shared.of_length(rng, digits)
    return Problem(seed, difficulty, {"a": str(a), "b": str(b)})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['a']}*{problem.data['b']}=")]


def product(problem: Problem) -> str:
    return str(int(problem.data["a"]) * int(problem.data["b"]))


def key(problem: Problem) -> str:
    return _shared.commuted(problem.data["a"], "*", problem.data["b"])


def gold(problem: Problem) -> str:
    return f"#{product(problem)}"


def solve(problem: Problem) -> str:
    a, b = problem.data["a"], problem.data["b"]
    steps, so_far = [], 0
    for place, digit in enumerate(reversed(b)):
        partial = int(a) * int(digit) * 10**place
        steps += [f"{_columns(a, int(digit))},{partial}", f"{so_far}+{partial}={so_far + partial}"]
        so_far += partial
    return ";".join(steps) + gold(problem)


def _columns(a: str, digit: int) -> str:
    steps, carry = [], 0
    for one in reversed(a):
        column = int(one) * digit + carry
        steps.append(f"{one}*{digit}+{carry}={column}")
        carry = column // 10
    return ",".join(steps)


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, product(problem))


SPEC = TaskSpec(
    id="multiplication-v1",
    summary="The product of two numbers, by partial products.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("multiplication-v0", "d0d9db214a42d5e88941a1f55d5b2747bad226559ec9e8d4415e2294f2d7fb70"),
    difficulties=(1, 2, 3, 4, 5, 6),
    isolated=False,
)
