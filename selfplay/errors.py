"""Errors that are told to a person in one sentence."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used: one sentence that says what was wrong and what would be right.

    Commands print the sentence and exit with code 2; nothing was changed.
    """


class Damaged(UserError):
    """A file is not what was written: half, empty, changed, or gone. Readers that know an older one go on with that.

    uri: the file. reason: what is wrong with it, the end of a sentence.
    """

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return f"{self.uri} is damaged: {self.reason}"
