"""Reaching a target with given numbers.

Problem:
    `difficulty` numbers from 1 to 15, in ascending order, and a target from 10 to 200, which + - * / make of all the
    numbers without leaving the integers from 1 to 200. data: {"numbers": [3, 9, 14], "target": 41}. Asked:
    `3,9,14=41?`.

Answer:
    What follows the last "#": an expression whose value is the target, as in `#3*9+14`, in the strict grammar of
    `envs/tasks/_expression.py`: at most 200 characters, + - * / with the usual precedence, parentheses at most 16
    deep, no signs, no spaces. It uses only the given numbers, each at most as often as it is given; fractions may
    occur on the way. Any such expression is right. Before the "#" anything may be written. A text of more than 8192
    characters has no answer.

Worked solution:
    One of two ways of searching. Most guess: up to five random combinations of all the numbers that miss the target,
    each step by step with what it comes to, beside the target; then one that reaches it. Of summands and factors the
    larger comes first: `14*9=126,126-3=123:41!;14+3=17,17*9=153:41!;9*3=27,27+14=41:41#(9*3)+14`.
    Of those for three numbers one in four goes through all combinations in order. It begins with the numbers; then come
    each operation on two of them, what is left, and each operation on that, with its value beside the target:
    `3,4,9:4+3=7,9:9+7=16:21,9*7=63:21,9-7=2:21;4*3=12,9:12+9=21:21#(4*3)+9`.
    The alphabet is 0-9 + - * / ( ) = , : ! ; #.

Difficulty:
    How many numbers, 3 to 6.

Version history:
    v0: first version.
    v1: the same questions; all targets of the same numbers are on the same side of the split, because a worked solution
        writes out other combinations of its numbers and what they come to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from random import Random

from envs.tasks import _shared
from envs.tasks._countdown import search
from envs.tasks._expression import Tree, ordered, parse, steps, value_of, written
from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict

_LARGEST = 200
_MOST_MISSES = 5
_IN_ORDER = 0.25


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("countdown", seed, difficulty)
    while True:
        numbers = sorted(rng.randint(1, 15) for _ in range(int(difficulty)))
        target = value_of(_combined(rng, numbers))
        if 10 <= target <= _LARGEST and target not in numbers:
            return Problem(seed, difficulty, {"numbers": numbers, "target": int(target)})


def _combined(rng: Random, numbers: list[int]) -> Tree:
    """A random tree of all the numbers, all of whose parts are integers from 1 to 200."""
    parts: list[tuple[int, Tree]] = [(number, number) for number in numbers]
    while len(parts) > 1:
        rng.shuffle(parts)
        (b, right), (a, left) = sorted((parts.pop(), parts.pop()), key=lambda part: part[0])
        operation, value = rng.choice(list(_results(a, b)))
        parts.append((value, (operation, left, right)))
    return parts[0][1]


def _results(a: int, b: int) -> Iterator[tuple[str, int]]:
    """Each operation on a >= b with its value, where that is an integer from 1 to the largest."""
    if a + b <= _LARGEST:
        yield "+", a + b
    if a * b <= _LARGEST:
        yield "*", a * b
    if a > b:
        yield "-", a - b
    if a % b == 0:
        yield "/", a // b


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{','.join(map(str, problem.data['numbers']))}={problem.data['target']}?")]


def key(problem: Problem) -> str:
    """The numbers alone: whoever has seen combinations of them knows what other targets they make."""
    return ",".join(map(str, problem.data["numbers"]))


def _solution(problem: Problem) -> Tree:
    tree = search(tuple(problem.data["numbers"]), problem.data["target"])
    if tree is None:
        raise ValueError("the target cannot be reached")
    return ordered(tree)


def gold(problem: Problem) -> str:
    return f"#{written(_solution(problem))}"


def solve(problem: Problem) -> str:
    target = problem.data["target"]
    rng = _shared.generator("countdown solution", problem.seed, problem.difficulty)
    if len(problem.data["numbers"]) == 3 and rng.random() < _IN_ORDER:
        return _in_order(problem.data["numbers"], target)
    tries = [ordered(_combined(rng, problem.data["numbers"])) for _ in range(rng.randint(0, _MOST_MISSES))]
    missed = [_shown(tree, target) + "!;" for tree in tries if value_of(tree) != target]
    return "".join(dict.fromkeys(missed)) + _shown(_solution(problem), target) + gold(problem)


def _in_order(numbers: list[int], target: int) -> str:
    """All combinations of three numbers, in order, to the first that reaches the target."""
    text = f"{','.join(map(str, numbers))}:"
    for low, high in combinations(range(3), 2):
        a, b, rest = numbers[high], numbers[low], numbers[3 - low - high]
        for first, made in _results(a, b):
            text += f"{a}{first}{b}={made},{rest}:"
            pair: Tree = (first, a, b)
            large, small = ((made, pair), (rest, rest)) if made >= rest else ((rest, rest), (made, pair))
            for second, value in _results(large[0], small[0]):
                text += f"{large[0]}{second}{small[0]}={value}:{target}"
                if value == target:
                    return f"{text}#{written((second, large[1], small[1]))}"
                text += ","
            text = text.rstrip(",") + ";"
    raise ValueError("the target cannot be reached")


def _shown(tree: Tree, target: int) -> str:
    return f"{','.join(steps(tree))}:{target}"


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    try:
        value, used = parse(_shared.final(transcript.answer))
    except ValueError as error:
        return Verdict.of(False, str(error))
    if Counter(used) - Counter(problem.data["numbers"]):
        return Verdict.of(False, "a number is used that is not given, or more often than it is given")
    return Verdict.of(value == problem.data["target"], f"{problem.data['target']} was to be reached")


SPEC = TaskSpec(
    id="countdown-v1",
    summary="An expression of given numbers that reaches a target.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("countdown-v0", "50b43d950afede5befd734f382c9ed9d37d5af453277a8245e80afb1ea8603ae"),
    difficulties=(3, 4, 5, 6),
    isolated=False,
)
