"""What really failed in an actor: Ray wraps its errors in others, and adds colours to them."""

from __future__ import annotations

import re

from ray.exceptions import RayActorError, RayError, RayTaskError

from selfplay.errors import UserError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause_of(error: BaseException) -> BaseException:
    """The exception that an actor raised, in a call or in its constructor; `error` itself where there is none."""
    seen: set[int] = set()
    while isinstance(error, RayTaskError) and id(error) not in seen:
        seen.add(id(error))
        inner = error.cause
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    if not isinstance(error, RayActorError):
        return error
    above = error.__cause__
    while above is not None:
        inner = getattr(above, "cause", None)
        if isinstance(inner, UserError):
            return inner
        above = above.__cause__
    said = _said(str(error)) if error.actor_init_failed else None
    return UserError(said) if said else error


def _said(text: str) -> str | None:
    """The sentence of a `UserError` in a constructor: of what one raises, Ray keeps only the text."""
    module, names = UserError.__module__, (UserError.__qualname__, "Damaged")
    kinds = "|".join(re.escape(f"{module}.{name}") for name in names)
    said = re.findall(rf"^(?:{kinds}): (.+)$", _COLOURS.sub("", text), re.MULTILINE)
    return said[-1] if said else None


def in_words(error: BaseException) -> str:
    """The error in one line without colours, for a log or a person."""
    cause = cause_of(error)
    if isinstance(cause, UserError):
        return str(cause)
    lines = _COLOURS.sub("", str(cause)).strip().splitlines()
    if isinstance(cause, RayTaskError) and len(lines) > 1:
        lines = lines[-1:]  # the error itself, below the traceback of the actor
    return f"{type(cause).__name__}: {lines[0][:300] if lines else 'no reason given'}"


def passes(error: BaseException) -> bool:
    """Whether it ends with this start: processes of Ray that died, nodes that left. The next start goes on."""
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)
