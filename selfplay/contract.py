"""What an environment author imports: the declaration of a game, or of a task.

A game is an OpenSpiel game: `pyspiel.State` is the interface of its rules, and nothing here repeats it. A `GameSpec`
adds what OpenSpiel lacks: an id with a version, the symmetries of the board, how the observation is to be read, a text
view and a drawing. A task is a source of problems whose answers can be verified: its author writes how one is made,
asked and judged; tokens, masks and log-probabilities are the factory's concern.

This module imports neither torch nor ray, and pyspiel only for type checkers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from selfplay import answers as answers

if TYPE_CHECKING:
    import numpy as np
    import pyspiel

ENV_ID = re.compile(r"[a-z][a-z0-9_]*(/[a-z0-9][a-z0-9_]*)?-v(0|[1-9][0-9]{0,8})")

#: Exact game values: legal action -> value (utility units) from the point of view of the seat to act in that state.
ExactValues = Mapping[int, float]
#: Solves one state. Raises `ValueError` for a state that is too far from the end to be solved at once.
ExactSolver = Callable[["pyspiel.State"], ExactValues]


@dataclass(frozen=True)
class Symmetry:
    """A bijection of states under which the rules do not change (a mirror, a rotation of the board).

    name: what a person calls it, such as "mirror".
    actions: `[num_distinct_actions]` ints; playing `a` in a state corresponds to playing `actions[a]` in its image.
    observation: maps observations `[..., *observation_shape]` (any dtype) of states to those of their images. It must
      be a view or a permutation: entries are moved, never changed.
    """

    name: str
    actions: tuple[int, ...]
    observation: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class GameSpec:
    """One game that can be played: what the registry finds, `check-env` proves and the factory runs.

    id: "name-vN"; N rises when the rules, the observation or the action numbering change.
    game: the full OpenSpiel game string, such as "hex(board_size=5)".
    summary: one sentence for listings.
    ply_limit: moves after which an episode ends as `truncated` (chance moves not counted); never scored as a draw.
    symmetries: without the identity.
    seat_planes: for observations that do not depend on the seat that asks. `seat_planes[s][i]` is the index of the
      observation plane that seat `s`, to act, should see at place `i`; so `((0, 1, 2), (1, 0, 2))` swaps "first
      player's stones" and "second player's stones". None: the planes are taken as they are and, where OpenSpiel's
      observation is the same for both seats, a plane with the seat to move is appended.
    policy_planes: where actions are laid out as [height, width, planes] over the board, the number of planes; the net
      then uses a convolutional policy head. None: a dense head.
    text: the state as a person writes it (one line or several); default `str(state)`.
    draw: the state as a board for a terminal (rich markup allowed); default `text`.
    action_text: an action as a person writes it; default `state.action_to_string`.
    exact: makes a solver that gives the exact value of every legal action, where one is known.
    register: called once before the game is loaded; registers a Python game with pyspiel. Must be idempotent.
    licence: SPDX id under which episodes of this game are published.
    """

    id: str
    game: str
    summary: str
    ply_limit: int
    symmetries: tuple[Symmetry, ...] = ()
    seat_planes: tuple[tuple[int, ...], ...] | None = None
    policy_planes: int | None = None
    text: Callable[[pyspiel.State], str] | None = None
    draw: Callable[[pyspiel.State], str] | None = None
    action_text: Callable[[pyspiel.State, int], str] | None = None
    exact: Callable[[], ExactSolver] | None = None
    register: Callable[[], None] | None = None
    licence: str = "CC0-1.0"

    def __post_init__(self) -> None:
        if not ENV_ID.fullmatch(self.id):
            raise ValueError(f"environment id {self.id!r} is not of the form name-vN, such as connect_four-v0")
        if self.ply_limit < 1:
            raise ValueError(f"{self.id}: ply_limit must be at least 1, got {self.ply_limit}")

    @property
    def name(self) -> str:
        """The id without its version: "connect_four"."""
        return self.id.rsplit("-v", 1)[0]

    @property
    def version(self) -> int:
        """The version in the id: 0 for "connect_four-v0"."""
        return int(self.id.rsplit("-v", 1)[1])


# Tasks: problems whose answers can be verified.


@dataclass(frozen=True)
class Message:
    """What is said to a seat. role: "system", "user" or "tool"."""

    role: str
    content: str


@dataclass(frozen=True)
class Problem:
    """One problem: made again exactly from its environment's id, `seed` and `difficulty`.

    data: what the author needs to ask and to verify; plain values that JSON can hold.
    """

    seed: int
    difficulty: float
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One thing that was said. seat: who said it, or to whom it was said. role: "assistant" where a policy wrote it."""

    seat: int
    role: str
    text: str


@dataclass(frozen=True)
class Transcript:
    """All that was said about a problem, in order. Made by the factory, never changed."""

    turns: tuple[Turn, ...]

    @property
    def answer(self) -> str:
        """The last text that a policy wrote; "" if none did."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "assistant"), "")

    def of(self, seat: int) -> tuple[str, ...]:
        """What the policy of `seat` wrote, in order."""
        return tuple(turn.text for turn in self.turns if turn.seat == seat and turn.role == "assistant")


@dataclass(frozen=True)
class Criterion:
    """One thing that was judged. score: finite, in [low, high]."""

    name: str
    score: float
    reason: str = ""
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one seat.

    state: "accepted", "rejected" or "unverifiable". reward: finite; None where nothing could be verified, which is
    never the same as zero. error: why it could not; "" otherwise.
    """

    state: str
    reward: float | None
    criteria: tuple[Criterion, ...] = ()
    error: str = ""

    @classmethod
    def of(cls, right: bool, reason: str = "", *criteria: Criterion) -> Verdict:
        """Accepted with reward 1 if `right`, else rejected with reward 0; `criteria` besides the answer itself."""
        answer = Criterion("answer", float(right), reason)
        return cls("accepted" if right else "rejected", float(right), (answer, *criteria))

    @classmethod
    def unverifiable(cls, error: str) -> Verdict:
        """Nobody could tell; the sample is archived and never trained on."""
        return cls("unverifiable", None, (), error)


@dataclass(frozen=True)
class Next:
    """Another turn: `messages` are said to `seat`, whose policy then answers."""

    seat: int
    messages: tuple[Message, ...]


def normalised(text: str) -> str:
    """The text without differences of case, white space and Unicode form: a key for questions in words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class TaskSpec:
    """Problems with verifiable answers: what the registry finds, `check-env` proves and the factory trains on.

    id: "name-vN"; N rises when problems, prompts, verdicts or keys change.
    summary: one sentence for listings.
    sample: (seed, difficulty) -> Problem; the same arguments give the same problem, on every machine.
    prompt: what seat 0 is told first.
    verify: the verdict of seat 0, or of every seat; must be sure: whatever it accepts is right. It reads text that a
      model wrote, so it parses and never evaluates. What it raises is "unverifiable".
    gold: an answer that must be accepted; None only where there is `play`.
    solve: a worked solution that ends in an accepted answer, written by a solver; None where there is none.
    difficulties: the levels that there are, the easiest first; 4 and 4.0 are the same level.
    respond: of tasks with several turns: called after each answer, with a generator of its own, until it returns None.
    play: of tasks with several turns: what a solver says next for the seat to answer, knowing only what was said. With
      it in all seats a dialogue ends within `max_turns`, and at least one seat is accepted.
    seats: how many policies take part.
    max_turns: answers after which an episode ends as `truncated`.
    isolated: all of the author's functions run in processes of their own, confined, with limits of time and memory, and
      what they print goes nowhere; `verify` and `respond` in a new one for each transcript. False promises that none of
      them can hang, crash or print, whatever a text says: their cost is bounded by its length before they parse it (a
      transcript of more than a million characters is read in a process of its own all the same).
    timeout_s: of one call of an isolated `verify` or `respond`, seconds; the other functions may take ten times that.
    licence: SPDX id under which episodes of this task are published.
    held_out_of: one problem of so many is held out for testing; at least 2.
    key: what makes a problem the same as another, as text: equal for twins such as 3+4 and 4+3, whose answers follow
      from one another. Its digest decides whether a problem is for training, development or testing, so twins are
      always on the same side. None: all that seat 0 is told first, to the letter.
    before_key: id of the version that the task had before it had a key, and sha256 (hex) of its file then. Problems,
      prompts and verdicts were the same, so the registry still finds that version, and its episodes are judged as ever.
    """

    id: str
    summary: str
    sample: Callable[[int, float], Problem]
    prompt: Callable[[Problem], Sequence[Message]]
    verify: Callable[[Problem, Transcript], Verdict | Sequence[Verdict]]
    gold: Callable[[Problem], str] | None = None
    solve: Callable[[Problem], str] | None = None
    difficulties: tuple[float, ...] = (1.0,)
    respond: Callable[[Problem, Transcript, Random], Next | None] | None = None
    play: Callable[[Problem, Transcript], str] | None = None
    seats: int = 1
    max_turns: int = 1
    isolated: bool = True
    timeout_s: float = 5.0
    licence: str = "CC0-1.0"
    held_out_of: int = 10
    key: Callable[[Problem], str] | None = None
    before_key: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not ENV_ID.fullmatch(self.id):
            raise ValueError(f"environment id {self.id!r} is not of the form name-vN, such as parity-v0")
        if not self.difficulties or list(self.difficulties) != sorted(set(self.difficulties)):
            raise ValueError(f"{self.id}: difficulties must be one or more different numbers, ascending")
        if self.seats < 1 or self.max_turns < 1 or self.timeout_s <= 0:
            raise ValueError(f"{self.id}: seats and max_turns must be at least 1, timeout_s more than 0")
        if self.held_out_of < 2:
            raise ValueError(f"{self.id}: held_out_of must be at least 2, or there is nothing to learn from")
        if (self.seats > 1 or self.max_turns > 1) and self.respond is None:
            raise ValueError(f"{self.id}: a task with several seats or turns needs `respond`")
        if (self.respond is None) != (self.play is None):
            raise ValueError(f"{self.id}: `respond` and `play` belong together")
        if self.gold is None and self.play is None:
            raise ValueError(f"{self.id}: a task needs `gold`, an answer that must be accepted")

    @property
    def name(self) -> str:
        """The id without its version: "parity"."""
        return self.id.rsplit("-v", 1)[0]

    @property
    def version(self) -> int:
        """The version in the id: 0 for "parity-v0"."""
        return int(self.id.rsplit("-v", 1)[1])


@dataclass(frozen=True)
class TaskFamily:
    """Many tasks in one file, each made when it is asked for: `FAMILY = TaskFamily(…)` in place of `SPEC`.

    name: what stands before the "/" in the id of each: "reasoning_gym" for "reasoning_gym/gcd-v1".
    summary: one sentence for listings.
    members: what may stand after it, without versions; known without importing what the tasks need.
    make: a member -> its task. Raises `ImportError` where a package is missing.
    left_out: what is no member, though one may look for it -> why.
    version: of all members but those in `versions`.
    versions: member -> its version, where verdicts of one member changed.
    extra: what brings the packages that the tasks need, as one gives it to pip.
    """

    name: str
    summary: str
    members: tuple[str, ...]
    make: Callable[[str], TaskSpec]
    left_out: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    extra: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)

    def version_of(self, member: str) -> int:
        return self.versions.get(member, self.version)

    def id_of(self, member: str) -> str:
        """The environment id of a member."""
        return f"{self.name}/{member}-v{self.version_of(member)}"


EnvSpec = GameSpec | TaskSpec
