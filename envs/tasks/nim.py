"""Heaps of stones, for two seats: who takes the last stone wins.

Problem:
    `difficulty` heaps of 1 to 8 stones. data: {"heaps": [5, 1, 8]}. One heap alone would give few questions. A seat
    that is to move is told the position and nothing else: `a5b1c8=`.

Answer:
    A move is what follows the last "#": the letter of a heap and how many stones to take from it, 1 to 3 and no more
    than there are, as in `#a3`. Before the "#" anything may be written. A text of more than 8192 characters has no
    move.

Turns:
    Seat 0 begins; the seats alternate. Who takes the last stone of all wins; an illegal or unreadable move loses at
    once.

Verdict:
    One a seat: accepted with reward 1 for who wins, rejected with reward -1 for who loses. A game cut before its end is
    unverifiable for both, and so is `gold` alone where it does not end the game. Criteria: game: 1 won, -1 lost; legal:
    1 where all moves of the seat were legal.

Gold:
    A best first move. `play` says a best move in any position: one after which the remainders of the heaps by 4,
    combined by exclusive or, are 0; whoever moves from such a position loses against best play, and there takes one
    stone.

Difficulty:
    The number of heaps, 3 to 6.

Source:
    The subtraction game of C. L. Bouton's theory of nim, "Nim, a game with a complete mathematical theory" (Annals of
    Mathematics 3, 1901), with at most three stones a move.

Version history:
    v0: first version.
    v1: the same questions; positions with the same heaps in another order are on the same side of the split. That is of
        first positions: the moves of a game lead through those of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import xor
from random import Random

from envs.tasks import _shared
from selfplay.contract import Criterion, Message, Next, Problem, TaskSpec, Transcript, Verdict

LEVELS = (3, 4, 5, 6)
MOST = 8
LETTERS = "abcdef"


@dataclass
class Game:
    """A position. winner: None while the game goes on. illegal: who moved illegally, None if nobody did."""

    heaps: list[int]
    seat: int = 0
    winner: int | None = None
    illegal: int | None = None

    def move(self, text: str) -> None:
        written = _shared.final(text)
        heap = LETTERS.find(written[0]) if len(written) == 2 else -1
        take = _shared.number(written[1:]) or 0
        if not 0 <= heap < len(self.heaps) or not 1 <= take <= min(3, self.heaps[heap]):
            self.winner, self.illegal = 1 - self.seat, self.seat
            return
        self.heaps[heap] -= take
        self.winner = None if any(self.heaps) else self.seat
        self.seat = 1 - self.seat

    def told(self) -> str:
        return "".join(f"{letter}{heap}" for letter, heap in zip(LETTERS, self.heaps, strict=False)) + "="

    def best(self) -> str:
        rest = reduce(xor, (heap % 4 for heap in self.heaps))
        for letter, heap in zip(LETTERS, self.heaps, strict=False):
            take = (heap % 4 - (heap % 4 ^ rest)) % 4
            if 1 <= take <= heap and rest:
                return f"#{letter}{take}"
        return f"#{next(letter for letter, heap in zip(LETTERS, self.heaps, strict=False) if heap)}1"


def replay(problem: Problem, transcript: Transcript) -> Game:
    """The game after all that was said. Raises `ValueError` where a seat answered that was not to move."""
    game = Game(list(problem.data["heaps"]))
    for turn in transcript.turns:
        if turn.role == "assistant":
            if turn.seat != game.seat or game.winner is not None:
                raise ValueError(f"seat {turn.seat} answered and was not to move")
            game.move(turn.text)
    return game


def sample(seed: int, difficulty: float) -> Problem:
    rng = _shared.generator("nim", seed, difficulty)
    return Problem(seed, difficulty, {"heaps": [rng.randint(1, MOST) for _ in range(int(difficulty))]})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", Game(list(problem.data["heaps"])).told())]


def key(problem: Problem) -> str:
    return ",".join(map(str, sorted(problem.data["heaps"])))


def gold(problem: Problem) -> str:
    return Game(list(problem.data["heaps"])).best()


def play(problem: Problem, transcript: Transcript) -> str:
    """A best move of the seat that is to move."""
    return replay(problem, transcript).best()


def respond(problem: Problem, transcript: Transcript, rng: Random) -> Next | None:
    game = replay(problem, transcript)
    return None if game.winner is not None else Next(game.seat, (Message("user", game.told()),))


def verify(problem: Problem, transcript: Transcript) -> list[Verdict]:
    game = replay(problem, transcript)
    if game.winner is None:
        return [Verdict.unverifiable("the game is not over")] * 2
    return [_verdict(seat == game.winner, seat != game.illegal) for seat in (0, 1)]


def _verdict(won: bool, legal: bool) -> Verdict:
    reward = 1.0 if won else -1.0
    criteria = (Criterion("game", reward, low=-1.0), Criterion("legal", float(legal)))
    return Verdict("accepted" if won else "rejected", reward, criteria)


SPEC = TaskSpec(
    id="nim-v1",
    summary="Two players take stones from heaps, one to three at a time; who takes the last stone wins.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    difficulties=LEVELS,
    respond=respond,
    play=play,
    key=key,
    before_key=("nim-v0", "a0c0ee60fea905af54e6aa8594dac80f494dcedebabd234f074aae9d71eeb2ed"),
    seats=2,
    max_turns=MOST * max(LEVELS),
    isolated=False,
)
