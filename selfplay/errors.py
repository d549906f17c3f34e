"""Errors that are told to a person in one sentence."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used: one sentence that says what was wrong and what would be right.

    Commands print the sentence and exit with code 2; nothing was changed.
    """
