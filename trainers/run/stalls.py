"""When to say that nothing is learned: not at once, and ever more seldom."""

from __future__ import annotations

from dataclasses import dataclass

#: Rounds in a row without anything to learn from before it is said.
_PATIENCE = 3
#: It is said again after this many times as many rounds.
SELDOM = 3


@dataclass
class Reminder:
    """When to say what stays true: after `patience` times in a row, then ever more seldom."""

    patience: int = _PATIENCE
    times: int = 0
    _next: int = 0

    def due(self, stalled: bool) -> bool:
        """stalled: whether it is still true."""
        if not stalled:
            self.times = self._next = 0
            return False
        self.times += 1
        if self.times < max(self.patience, self._next):
            return False
        self._next = self.times * SELDOM
        return True
