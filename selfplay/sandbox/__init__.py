"""Confinement of the processes that judge answers: no file but to read, no process, no network, little memory."""

from __future__ import annotations

from selfplay.sandbox.confinement import confine, prepare
from selfplay.sandbox.description import describe
from selfplay.sandbox.limits import limit
from selfplay.sandbox.namespaces import enter_namespaces
from selfplay.sandbox.record import Confinement, Description, Namespaces, Unconfined

__all__ = [
    "Confinement",
    "Description",
    "Namespaces",
    "Unconfined",
    "confine",
    "describe",
    "enter_namespaces",
    "limit",
    "prepare",
]
