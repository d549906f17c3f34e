"""The contract test that every environment passes; `selfplay check-env` runs it.

It plays a few random games and compares what the author declared with what the rules do. Every check stops at its first
difference and says at which ply of which game, and in which field, it is. It needs neither torch, ray nor a network.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from selfplay.checks.rules import RULES
from selfplay.checks.subject import Subject, prepare
from selfplay.checks.views import VIEWS
from selfplay.contract import GameSpec
from selfplay.errors import UserError
from selfplay.game import unsearchable
from selfplay.playthrough import ruleset_digest

OURS = str(Path(__file__).parent)


@dataclass(frozen=True)
class Finding:
    """One check. problem: the first difference in one sentence; None where all is well."""

    name: str
    problem: str | None


@dataclass(frozen=True)
class Report:
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

    @property
    def ok(self) -> bool:
        return all(finding.problem is None for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        return {"ok": self.ok, **asdict(self)}


def check(spec: GameSpec) -> Report:
    """Plays random games of `spec` and compares its declarations with them; takes a few seconds.

    Never raises for a fault of the environment: what its code raises becomes a finding.
    """
    start = time.monotonic()
    subject: Subject | None = None

    def loads() -> str | None:
        nonlocal subject
        subject = prepare(spec)
        return None

    findings = [Finding("loads and plays", run_check(loads))]
    if subject is None:
        return Report(spec.id, spec.game, tuple(findings), seconds=_since(start))
    findings += [Finding(name, run_check(partial(function, subject))) for name, function in (*RULES, *VIEWS)]
    passed = all(finding.problem is None for finding in findings)
    loaded = subject.loaded
    ruleset = ruleset_digest(spec) if passed else None
    return Report(
        id=spec.id,
        game=loaded.string,
        findings=tuple(findings),
        unsearchable=unsearchable(loaded),
        players=loaded.num_players,
        actions=loaded.num_actions,
        input_shape=subject.encoder.shape if subject.encoder is not None else None,
        symmetries=tuple(symmetry.name for symmetry in spec.symmetries),
        games=len(subject.games),
        plies=sum(map(len, subject.games)),
        seconds=_since(start),
        ruleset=ruleset,
        drawing=loaded.draw(subject.after(subject.games[0])) if passed else "",
    )


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)


def run_check(function: Callable[[], str | None]) -> str | None:
    """The problem that `function` returns, or what it raises, with the line of the author's code that raised it."""
    try:
        return function()
    except UserError as error:
        return str(error)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        frames = traceback.extract_tb(error.__traceback__)
        frame = ([f for f in frames if not f.filename.startswith(OURS)] or list(frames))[-1]
        return f"raises {type(error).__name__}: {first} ({frame.filename}, line {frame.lineno}, in {frame.name})"
