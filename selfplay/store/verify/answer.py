"""A turn of a dialogue that a seat wrote, with what its seat was told before it: what tokens are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.episode import PolicySpan

Turn = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """A turn that a seat wrote. place: its index. messages: what its seat was told since its last answer, (role, text)
    each. before: tokens of its seat's line before them. last: the seat's answer before this one, None for its first.
    """

    place: int
    turn: Turn
    span: PolicySpan
    messages: tuple[tuple[str, str], ...]
    before: int
    last: Turn | None

    @property
    def told(self) -> str:
        """The texts of the messages, joined."""
        return "".join(text for _, text in self.messages)

    @property
    def sampled(self) -> bool:
        """Whether a policy gave it with log-probabilities."""
        return self.turn["logprobs"] is not None
