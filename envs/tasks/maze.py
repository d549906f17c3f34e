"""A shortest path through a small maze.

Problem:
    A square of `difficulty` rows with walls ("x"), free cells ("."), a start ("S") and an end ("E") that can be reached
    in no fewer than `difficulty` steps. data: {"rows": ["S.x", "...", "xxE"]}. Asked: the rows, one a line, then `=`.

Answer:
    What follows the last "#": the steps, each U, D, L or R (up, down, left, right), as in `#DRRD`. Every shortest
    path is right. A longer one is rejected, and so is one that leaves the square, enters a wall or does not stop at
    the end; before the "#" anything may be written. A text of more than 8192 characters has no answer.

Criteria:
    answer: 1 where the path is right. length: of a path that leads to the end, the steps needed divided by the steps
    taken; else 0.

Worked solution:
    Which cells (row and column, from 0) can be reached in 0 steps, in 1, ... until the end is among them; then a path.
    For the above: `00;01,10;11;12;22#DRRD`. The alphabet is 0-9 , ; # U D L R.

Difficulty:
    The number of rows, 3 to 9.

Version history:
    v0: first version.
    v1: the same questions; a maze, its mirror images and rotations, with start and end exchanged or not, are on the
        same side of the split.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.tasks import _shared
from selfplay.contract import Criterion, Message, Problem, TaskSpec, Transcript, Verdict

STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
Cell = tuple[int, int]
_FROM_THE_END = str.maketrans("SE", "ES")


def sample(seed: int, difficulty: float) -> Problem:
    rng, size = _shared.generator("maze", seed, difficulty), int(difficulty)
    cells = [(row, column) for row in range(size) for column in range(size)]
    while True:
        marks = {cell: "x" if rng.random() < 0.3 else "." for cell in cells}
        start, end = rng.sample(cells, 2)
        marks |= {start: "S", end: "E"}
        rows = ["".join(marks[row, column] for column in range(size)) for row in range(size)]
        path = layers(rows)[1]
        if path is not None and len(path) >= size:
            return Problem(seed, difficulty, {"rows": rows})


def prompt(problem: Problem) -> list[Message]:
    return [Message("user", "\n".join([*problem.data["rows"], "="]))]


def key(problem: Problem) -> str:
    """Of the maze's rotations and mirror images, from either end, the one that comes first when sorted."""
    rows: Sequence[str] = problem.data["rows"]
    images: list[str] = []
    for _ in range(4):
        rows = ["".join(column) for column in zip(*reversed(rows), strict=True)]  # a quarter turn
        images += ["\n".join(rows), "\n".join(reversed(rows))]
    return min(images + [image.translate(_FROM_THE_END) for image in images])


def after(rows: Sequence[str], cell: Cell, step: str) -> Cell | None:
    """Where a step leads; None: into a wall or out of the square."""
    row, column = cell[0] + STEPS[step][0], cell[1] + STEPS[step][1]
    inside = 0 <= row < len(rows) and 0 <= column < len(rows)
    return (row, column) if inside and rows[row][column] != "x" else None


def find(rows: Sequence[str], mark: str) -> Cell:
    return next((row, line.index(mark)) for row, line in enumerate(rows) if mark in line)


def layers(rows: Sequence[str]) -> tuple[list[list[Cell]], str | None]:
    """The cells that are 0, 1, ... steps away, up to the end's; and a shortest path, None where there is none."""
    start, end = find(rows, "S"), find(rows, "E")
    paths, found = {start: ""}, [[start]]
    while found[-1] and end not in paths:
        found.append([])
        for cell in found[-2]:
            for step in STEPS:
                neighbour = after(rows, cell, step)
                if neighbour is not None and neighbour not in paths:
                    paths[neighbour] = paths[cell] + step
                    found[-1].append(neighbour)
    return found, paths.get(end)


def gold(problem: Problem) -> str:
    return f"#{layers(problem.data['rows'])[1]}"


def solve(problem: Problem) -> str:
    reached = layers(problem.data["rows"])[0]
    told = [",".join(f"{row}{column}" for row, column in sorted(layer)) for layer in reached]
    return ";".join(told) + gold(problem)


def verify(problem: Problem, transcript: Transcript) -> Verdict:
    rows, path = problem.data["rows"], _shared.final(transcript.answer)
    reason = _fault(rows, path)
    if reason is not None:
        return Verdict.of(False, reason, Criterion("length", 0.0, reason))
    needed = len(gold(problem)) - 1
    told = f"{len(path)} steps where {needed} are enough"
    return Verdict.of(len(path) == needed, told, Criterion("length", needed / len(path), told))


def _fault(rows: Sequence[str], path: str) -> str | None:
    """Why `path` does not lead from the start to the end; None if it does."""
    if not path or len(path) > len(rows) ** 2 or set(path) - set(STEPS):
        return "not a short text of the letters U, D, L and R after a #"
    cell: Cell | None = find(rows, "S")
    for count, step in enumerate(path, 1):
        cell = None if cell is None else after(rows, cell, step)
        if cell is None:
            return f"step {count} leads into a wall or out of the square"
    return None if cell == find(rows, "E") else "the path does not stop at the end"


SPEC = TaskSpec(
    id="maze-v1",
    summary="A shortest path through a small maze.",
    sample=sample,
    prompt=prompt,
    verify=verify,
    gold=gold,
    solve=solve,
    key=key,
    before_key=("maze-v0", "7d4da27cadb201be9adaec0bdd93e4b357a08089557a746057a2c1b1b8784741"),
    difficulties=(3, 4, 5, 6, 7, 8, 9),
    isolated=False,
)
