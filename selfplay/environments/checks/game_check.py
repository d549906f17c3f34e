"""The contract test that every environment passes; `selfplay check-env` runs it.

It plays a few random games and compares what the author declared with what the rules do. Every check stops at its first
difference and says at which ply of which game, and in which field, it is. It needs neither torch, ray nor a network.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial

from selfplay.contract import GameSpec
from selfplay.environments.checks.frames import raised
from selfplay.environments.checks.progress import progress
from selfplay.environments.checks.report import Finding, Listener, Report
from selfplay.environments.checks.rules import RULES, Found
from selfplay.environments.checks.subject import Subject, prepare
from selfplay.environments.checks.views import VIEWS
from selfplay.environments.game import unsearchable
from selfplay.environments.playthrough import ruleset_digest
from selfplay.errors import UserError


def check(spec: GameSpec, listener: Listener = lambda finding: None) -> Report:
    """Plays random games of `spec` and compares its declarations with them; takes a few seconds.

    Never raises for a fault of the environment: what its code raises becomes a finding. It has no time limit, and looks
    at this process only; `selfplay.environments.checks.watch.examine` brings both.
    """
    start = time.monotonic()
    subject: Subject | None = None

    def loads() -> str | None:
        nonlocal subject
        subject = prepare(spec)
        return None

    findings = [run_check("loads and plays", loads, listener)]
    if subject is None:
        return Report(spec.id, spec.game, tuple(findings), seconds=_since(start))
    checks = (*RULES, *VIEWS)
    findings += [run_check(name, partial(function, subject), listener) for name, function in checks]
    progress().check("the golden playthrough")
    passed = all(finding.problem is None for finding in findings)
    loaded = subject.loaded
    ruleset = ruleset_digest(spec, progress().step) if passed else None
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


def run_check(name: str, function: Callable[[], Found], listener: Listener) -> Finding:
    """What `function` finds: a problem or None, or (problem, remark); or what it raises, with the author's line."""
    at = progress()
    at.check(name)
    note: str | None = None
    try:
        found = function()
        problem, note = found if isinstance(found, tuple) else (found, None)
    except UserError as error:
        problem = str(error)
    except Exception as error:
        problem = what_was_raised(error)
    finding = Finding(name, problem, note, at.place if problem is not None else "")
    listener(finding)
    return finding


def what_was_raised(error: Exception) -> str:
    """An exception in one line, with the line of the author's code that raised it."""
    first = (str(error).strip().splitlines() or [""])[0]
    frame = raised(traceback.extract_tb(error.__traceback__))
    return f"raises {type(error).__name__}: {first} ({frame})"
