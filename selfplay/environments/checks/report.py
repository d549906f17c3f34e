"""What `selfplay check-env` reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One check.

    problem: the first difference in one sentence; None where all is well. note: what may be meant so, and is no fault.
    where: the game and its moves, or the problem, that the check had come to when it found the difference.
    """

    name: str
    problem: str | None
    note: str | None = None
    where: str = ""


#: Told of each finding as soon as it is made.
Listener = Callable[[Finding], None]


class _Checked:
    """What the reports of a game and of a task share."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.problem is None for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """Plain data, as `--json` prints it."""
        return {"ok": self.ok, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Report(_Checked):
    """What `check` found.

    unsearchable: the property that keeps the two-player search from playing the game, in words; None if it can.
    input_shape: of the net; None where the game has no tensor.
    games, plies: how much random play the checks looked at (plies of all games together).
    ruleset: the ruleset digest; None where a check failed.
    drawing: the last position of a random game, as rich markup where the author draws; "" where a check failed.
    """

    id: str
    game: str
    findings: tuple[Finding, ...]
    unsearchable: str | None = None
    players: int = 0
    actions: int = 0
    input_shape: tuple[int, ...] | None = None
    symmetries: tuple[str, ...] = ()
    games: int = 0
    plies: int = 0
    seconds: float = 0.0
    ruleset: str | None = None
    drawing: str = ""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Report:
        """The report of which `as_dict`, read from JSON, is given."""
        shape = plain["input_shape"]
        return cls(
            **{
                **{name: value for name, value in plain.items() if name != "ok"},
                "findings": tuple(Finding(**one) for one in plain["findings"]),
                "input_shape": None if shape is None else tuple(shape),
                "symmetries": tuple(plain["symmetries"]),
            }
        )


@dataclass(frozen=True)
class TaskReport(_Checked):
    """What `selfplay.environments.checks.task_check` found.

    example: a problem as it is asked, its gold answer and its worked solution.
    """

    id: str
    summary: str
    findings: tuple[Finding, ...]
    difficulties: tuple[float, ...] = ()
    problems: int = 0
    seconds: float = 0.0
    example: tuple[str, str, str] = ("", "", "")

    @classmethod
    def of(cls, plain: dict[str, Any]) -> TaskReport:
        """The report of which `as_dict`, read from JSON, is given."""
        question, gold, solution = plain["example"]
        return cls(
            **{
                **{name: value for name, value in plain.items() if name != "ok"},
                "findings": tuple(Finding(**one) for one in plain["findings"]),
                "difficulties": tuple(plain["difficulties"]),
                "example": (question, gold, solution),
            }
        )
