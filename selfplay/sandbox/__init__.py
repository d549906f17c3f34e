"""Confinement of the processes that judge answers: no file but to read, no process, no network, little memory."""

from __future__ import annotations

from selfplay.sandbox.confinement import confine
from selfplay.sandbox.limits import limit
from selfplay.sandbox.namespaces import enter_namespaces
from selfplay.sandbox.probe import Description, describe
from selfplay.sandbox.record import Confinement, Namespaces, Unconfined

__all__ = [
    "Confinement", "Description", "Namespaces", "Unconfined", "confine", "describe", "enter_namespaces", "limit",
]  # fmt: skip
