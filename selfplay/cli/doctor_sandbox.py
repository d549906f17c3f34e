"""What `selfplay doctor` says of the confinement of verifiers on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from selfplay.cli.findings import Finding
from selfplay.sandbox import Confinement, Description, describe

_SUBJECT = "confinement"
_CONSEQUENCE = "answers of isolated tasks get no verdict here, and no reward"


def sandbox() -> Iterator[Finding]:
    """Attacks this machine's confinement and reports what it refused."""
    yield from findings(describe())


def findings(found: Description) -> Iterator[Finding]:
    """The findings that a description comes to."""
    if found.confinement is None:
        yield Finding(_SUBJECT, "bad", f"verifiers cannot be confined: {found.reason}; {_CONSEQUENCE}")
        return
    if found.succeeded:
        attacks = ", ".join(found.succeeded)
        yield Finding(
            _SUBJECT, "bad", f"a confined process can still: {attacks}; do not verify strangers' answers here"
        )
    else:
        yield Finding(_SUBJECT, "ok", f"{len(found.refused)} attacks on it were refused; {_layers(found.confinement)}")
    around = found.confinement.namespaces
    if around.missing:
        yield Finding(_SUBJECT, "note", f"{around.missing}; the other layers hold without")


def _layers(laid: Confinement) -> str:
    parts = [f"system calls by an allow-list ({laid.seccomp})"]
    if laid.landlock:
        parts.append(f"files and network by Landlock {laid.landlock}")
    own = [name for name in ("user", "pid", "net", "ipc", "mount") if getattr(laid.namespaces, name)]
    if own:
        parts.append(f"own namespaces ({', '.join(own)})")
    return ", ".join(parts)
