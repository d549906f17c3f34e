"""What holds for a process that was confined, as plain records."""

from __future__ import annotations

from dataclasses import dataclass


class Unconfined(Exception):
    """This process could not be confined; the text says why, in a clause without a full stop."""


@dataclass(frozen=True)
class Namespaces:
    """Which namespaces of its own a process got.

    user, pid, net, ipc, mount: whether it has its own.
    own_proc: whether its /proc shows its own pid namespace only.
    missing: why it lacks some, a clause; "" where it has all.
    """

    user: bool = False
    pid: bool = False
    net: bool = False
    ipc: bool = False
    mount: bool = False
    own_proc: bool = False
    missing: str = ""


@dataclass(frozen=True)
class Confinement:
    """What holds for this process until it ends.

    seccomp: the architecture whose allow-list of system calls is laid, such as x86_64.
    landlock: the version of Landlock's interface (ABI) that restricts files, network, signals; 0 if none.
    pid_namespace: whether the process dies with its server because both live in a pid namespace.
    limits: (name, value) of each resource limit, such as ("RLIMIT_AS", bytes).
    namespaces: those of the server that forked it.
    """

    seccomp: str
    landlock: int
    pid_namespace: bool
    limits: tuple[tuple[str, int], ...]
    namespaces: Namespaces


@dataclass(frozen=True)
class Description:
    """What confinement holds on this machine.

    confinement: what a copy gets; None where it cannot be confined. reason: why it cannot; "" where it can.
    refused: the attacks that failed, by name. succeeded: those that did not; anything here is a hole.
    """

    confinement: Confinement | None
    reason: str
    refused: tuple[str, ...]
    succeeded: tuple[str, ...]
