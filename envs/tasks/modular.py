"""An expression modulo a number, one operation after the other.

Problem:
    A number, then `difficulty` operations, each +, - or * with another number and applied to all that stands before it;
    numbers 2 to 99; at last the remainder by a modulus of 5 to 29. data: {"first": 17, "steps": [["*", 23], ["+", 5]],
    "modulus": 7}. Asked: `(17*23+5)mod 7=`; parentheses stand where multiplication would otherwise bind first.

Answer:
    What follows the last "#": exactly the digits of the remainder, 0 to modulus - 1, as in `#4`. Before the "#"
    anything may be written. A text of more than 8192 characters has no answer.

Worked solution:
    The first number's remainder; then for each operation the number's remainder, and the result with its remainder. For
    the above: `17=3;23=2,3*2=6=6;5=5,6+5=11=4#4`. The alphabet is 0-9 + - * = , ; #.

Difficulty:
    The number of operations, 1 to 12.

Version history:
    v0: first version.
    v1: the same questions; expressions that differ in the order of summands or factors are on the same side of the
        split.
"""

from __future__ import annotations

from operator import add, mul, sub

from envs.tasks import _shared
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict

OPERATIONS = {"+": add, "-": sub, "*": mul}


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("modular", seed, difficulty)
    steps = [[rng.choice("+-*"), rng.randint(2, 99)] for _ in range(int(difficulty))]
    data = {"first": rng.randint(2, 99), "steps": steps, "modulus": rng.randint(5, 29)}
    return Problem(seed, difficulty, data)


def prompt(problem: Problem) -> list[Message]:
    text, last = str(problem.data["first"]), "*"
    for operation, operand in problem.data["steps"]:
        text = f"({text})" if operation == "*" and last != "*" else text
        text, last = f"{text}{operation}{operand}", operation
    return [Message("user", f"({text})mod {problem.data['modulus']}=")]


def key(problem: Problem) -> str:
    """The operations, in order where order counts: summands that follow one another are sorted, and so are factors."""
    runs: list[tuple[bool, list[str]]] = []  # (whether factors, their signs and numbers)
    for operation, operand in problem.data["steps"]:
        if not runs or runs[-1][0] != (operation == "*"):
            runs.append((operation == "*", []))
        runs[-1][1].append(f"{operation}{operand}")
    factors, first = runs[0]
    first.append(f"{'*' if factors else '+'}{problem.data['first']}")
    return f"{';'.join(''.join(sorted(run)) for _, run in runs)}mod{problem.data['modulus']}"


def gold(problem: Problem) -> str:
    value = problem.data["first"]
    for operation, operand in problem.data["steps"]:
        value = OPERATIONS[operation](value, operand)
    return f"#{value % problem.data['modulus']}"


def solve(problem: Problem) -> str:
    first, modulus = problem.data["first"], problem.data["modulus"]
    value = first % modulus
    steps = [f"{first}={value}"]
    for operation, operand in problem.data["steps"]:
        small = operand % modulus
        result = OPERATIONS[operation](value, small)
        steps.append(f"{operand}={small},{value}{operation}{small}={result}={result % modulus}")
        value = result % modulus
    return f"{';'.join(steps)}#{value}"


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    return _shared.exactly(transcript, _shared.final(gold(problem)))


SPEC = TaskSpec(
    id="modular-v1",
    summary="An expression modulo a number, one operation after the other.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("modular-v0", "af71b92fbf5dff07b7629a4d2d11f22a3ab40b33d0c45c2810a538aeba36abd1"),
    difficulties=(1, 2, 3, 4, 5, 6, 8, 10, 12),
    isolated=False,
)
