"""Whether a string of bits holds an odd number of ones.

Problem:
    `difficulty` bits, each a fair coin. data: {"bits": "0110"}.

Answer:
    The last character of the text: 1 where the number of ones is odd, else 0. Before it anything may be written, of the
    characters 0 and 1 alone: thinking aloud means to write the parity of the first bit, of the first two, and so on.

Worked solution:
    The running parities, one a bit; the last is the answer. An answer without thought is the last character alone.

Difficulty:
    The number of bits, 8 to 64.

Source:
    "RL after next-token prediction" (arXiv:2510.11495) has parity as the smallest task on which reinforcement learning
    lengthens thought.

Version history:
    v0: first version.
"""

from __future__ import annotations

from itertools import accumulate
from operator import xor
from random import Random

from selfplay.contract import Message, Problem, TaskSpec, Transcript, Verdict


def sample(seed: int, difficulty: float) -> Problem:
    rng = Random(f"parity {seed} {int(difficulty)}")
    return Problem(seed, difficulty, {"bits": "".join(rng.choice("01") for _ in range(int(difficulty)))})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['bits']}=")]


def gold(problem: Problem) -> str:
    return str(problem.data["bits"].count("1") % 2)


def solve(problem: Problem) -> str:
    return "".join(map(str, accumulate(map(int, problem.data["bits"]), xor)))


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    answer = transcript.answer
    if not answer or len(answer) > 4096 or set(answer) - {"0", "1"}:
        return Verdict.of(False, "not a string of the characters 0 and 1")
    return Verdict.of(answer[-1] == gold(problem), f"the answer is {gold(problem)}")


SPEC = TaskSpec(
    id="parity-v0",
    summary="Is the number of ones in a string of bits odd?",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    difficulties=(8, 12, 16, 20, 24, 32, 48, 64),
    isolated=False,
)
