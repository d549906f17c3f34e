"""A task whose functions are called in this process, each call a step that is seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from selfplay.contract import TaskSpec
from selfplay.environments.checks.progress import progress

_FUNCTIONS = ("sample", "prompt", "verify", "gold", "solve", "respond", "play")


def here(spec: TaskSpec) -> TaskSpec:
    """The same task, not isolated: a call that hangs stands in this process's stack, with its line."""
    given = {name: getattr(spec, name) for name in _FUNCTIONS if getattr(spec, name) is not None}
    functions: dict[str, Any] = {name: _stepping(name, function) for name, function in given.items()}
    return replace(spec, isolated=False, **functions)


def _stepping(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        progress().doing(name)
        try:
            return function(*arguments)
        finally:
            progress().step()

    return call
