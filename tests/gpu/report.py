"""What the checks tell: rows with a verdict and numbers, printed as they come, as JSON lines to whoever listens."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: Before a row on standard output; other lines are for people.
MARK = "@row "
OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


class Skip(Exception):
    """What a case lacks on this machine, in words."""


class Wrong(Exception):
    """A bound that was not kept; `numbers` are told all the same."""

    def __init__(self, why: str, **numbers: Any) -> None:
        super().__init__(why)
        self.numbers = numbers


@dataclass
class Report:
    """Of one check. deadline: of `time.monotonic`, seconds, after which no new case begins."""

    check: str
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def row(self, case: str, verdict: str, note: str = "", **numbers: Any) -> None:
        """One line of the table. numbers: plain values by name, the unit in the name where there is one."""
        row = {"check": self.check, "case": case, "verdict": verdict, "note": note, "numbers": _plain(numbers)}
        sys.stdout.write(MARK + json.dumps(row) + "\n")
        sys.stdout.flush()

    def case(self, name: str, run: Callable[..., dict[str, Any]], *given: Any, need_s: float = 0.0) -> None:
        """Runs one case; whatever it raises is its own verdict, and the next goes on.

        run: is given what follows it and returns numbers; raises `Wrong` where a bound is not kept, `Skip` where
        something is missing.
        need_s: seconds that it is likely to take; skipped where fewer are left.
        """
        if self.left <= 0 or self.left < need_s:
            self.row(name, SKIPPED, f"no time: {self.left:.0f} s left, {need_s:.0f} s needed")
            return
        began = time.monotonic()
        try:
            numbers = run(*given)
            self.row(name, OK, seconds=time.monotonic() - began, **numbers)
        except Skip as error:
            self.row(name, SKIPPED, str(error))
        except Wrong as error:
            self.row(name, FAILED, str(error), **error.numbers)
        except Exception as error:
            if _out_of_memory(error):
                self.row(name, SKIPPED, "does not fit into the device's memory")
                _free()
                return
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = (str(error).strip().splitlines() or [""])[0][:300]
            place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
            self.row(name, FAILED, f"{type(error).__name__}: {text} ({place})")
            traceback.print_exc()


def bounded(bounds: dict[str, float], numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers, where each that has a bound is finite and at most it. Raises `Wrong` otherwise."""
    broken = [f"{name} {numbers[name]:.3g} > {most:g}" for name, most in bounds.items() if not numbers[name] <= most]
    if broken:
        raise Wrong(", ".join(broken), **numbers)
    return numbers


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as lines of text."""
    for row in rows:
        numbers = "  ".join(f"{name}={_short(value)}" for name, value in row["numbers"].items())
        yield f"{row['verdict']:8}{row['check']:10}{row['case']:44} {numbers}{'  ' if row['note'] else ''}{row['note']}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity: they become text."""
    plain = {}
    for name, value in numbers.items():
        if not isinstance(value, str | bool | int | dict | list):
            value = float(value)
            value = value if abs(value) < float("inf") else str(value)
        plain[name] = value
    return plain


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _free() -> None:
    """Gives what nobody holds any more back to the device."""
    gc.collect()
    if "torch" in sys.modules:
        with contextlib.suppress(RuntimeError):
            sys.modules["torch"].cuda.empty_cache()
