"""A hidden number, found by asking whether it is higher or lower; a task of several turns.

Problem:
    A number among 2 ** `difficulty` consecutive ones; the lowest is 1 to 9999. data: {"low": 137, "high": 144,
    "number": 140}. Asked: `137..144?`.

Answer:
    In every turn, what follows the last "#" is the guess: ASCII digits without leading zeros, at most nine, as in
    `#140`. Before the "#" anything may be written. A text of more than 8192 characters has no guess.

Turns:
    After a guess the next turn opens with `higher` (the number is), `lower`, or `not a number`, which costs a turn too.
    It ends when the number is named, or after `difficulty` + 1 turns: with these, halving always finds it.

Verdict:
    Accepted where the last text names the number and came within the bound, else rejected. Criteria: answer; turns: how
    many there were. `gold` is the number at once, a lucky guess; `play` is what one says who knows only what was said.

Difficulty:
    The binary logarithm of how many numbers there are, 3 to 10.

Version history:
    v0: first version.
"""

from __future__ import annotations

from random import Random

from envs.tasks import _shared
from selfplay.contract import Criterion, Message, Next, Problem, TaskSpec, Transcript, Verdict

LEVELS = (3, 4, 5, 6, 7, 8, 9, 10)


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("guess_number", seed, difficulty)
    low = rng.randint(1, 9999)
    high = low + 2 ** int(difficulty) - 1
    return Problem(seed, difficulty, {"low": low, "high": high, "number": rng.randint(low, high)})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", f"{problem.data['low']}..{problem.data['high']}?")]


def bound(problem: Problem) -> int:
    """Turns within which the number must be found; enough for whoever halves."""
    return int(problem.data["high"] - problem.data["low"] + 1).bit_length()


def gold(problem: Problem) -> str:
    return f"#{problem.data['number']}"


def guess(text: str) -> int | None:
    return _shared.number(_shared.final(text))


def feedback(problem: Problem, text: str) -> str | None:
    """What is said of a guess; None if it is right."""
    guessed, number = guess(text), problem.data["number"]
    if guessed is None:
        return "not a number"
    return None if guessed == number else "higher" if number > guessed else "lower"


def respond(problem: Problem, transcript: Transcript, rng: Random) -> Next | None:
    told = feedback(problem, transcript.answer)
    if told is None or len(transcript.of(0)) >= bound(problem):
        return None
    return Next(0, (Message("user", told),))


def play(problem: Problem, transcript: Transcript) -> str:
    """The next guess of one who halves; of the number it uses only what was said of earlier guesses."""
    low, high = problem.data["low"], problem.data["high"]
    for text in transcript.of(0):
        guessed, told = guess(text), feedback(problem, text)
        if guessed is not None:
            low = max(low, guessed + 1) if told == "higher" else low
            high = min(high, guessed - 1) if told == "lower" else high
    return f"#{(low + high) // 2}"


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    turns, most = len(transcript.of(0)), bound(problem)
    right = turns <= most and feedback(problem, transcript.answer) is None
    told = f"{turns} turns of {most}; the number is {problem.data['number']}"
    return Verdict.of(right, told, Criterion("turns", float(turns), told, high=float(max(turns, most))))


SPEC = TaskSpec(
    id="guess_number-v0",
    summary="A hidden number, found by asking whether it is higher or lower.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    difficulties=LEVELS,
    respond=respond,
    play=play,
    max_turns=max(LEVELS) + 1,
    isolated=False,
)
