"""Who plays: hired as cores appear, replaced where they die, left out where they always die.

A slot is one player's place, p0000, p0001, …; who takes it over writes under a new epoch. On a cluster with
`selfplay.actors = auto` there are as many slots as cores, and nodes that join or leave change that; with a fixed number
there are that many, and those without a core wait for one (an autoscaler sees them wait, and brings it).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import RayError

from selfplay.errors import UserError
from trainers.run.failure_causes import cause_of
from trainers.run.placement import Shortage

#: A player that dies this often in a row, without one good call between, is left out.
MOST_DEATHS = 4
_LOOK_S, _COUNT_S = 2.0, 5.0


class Arrivals:
    """Who has been hired, and has found a core and loaded. tell: is told of those that wait long."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._coming: dict[str, Any] = {}  # slot -> answered when its player has begun
        self._shortage = Shortage("players", "core", tell)
        self._looked = 0.0

    def expect(self, slot: str, player: Any) -> None:
        """A player was hired for a slot."""
        self._coming[slot] = player.pid.remote()

    def have(self, slot: str) -> bool:
        """Whether the slot's player has begun, or died."""
        if slot in self._coming and ray.wait([self._coming[slot]], timeout=0)[0]:
            del self._coming[slot]
        return slot not in self._coming

    def known(self, slots: Collection[str]) -> list[str]:
        """Those whose players are known to have begun, as it was seen last."""
        return [slot for slot in slots if slot not in self._coming]

    def look(self, slots: Collection[str]) -> None:
        """Counts, every few seconds, who waits. Raises `UserError` where for long there was room for nobody."""
        if time.monotonic() - self._looked > _COUNT_S:
            self._looked = time.monotonic()
            waiting = sum(not self.have(slot) for slot in slots)
            self._shortage.look(waiting, len(slots) - waiting)


class Roster:
    """Players by slot.

    hire: makes a player for a slot. wanted: how many there should be now.
    """

    def __init__(self, hire: Callable[[str], Any], wanted: Callable[[], int]) -> None:
        self.players: dict[str, Any] = {}
        self._hire, self._wanted = hire, wanted
        self._deaths: Counter[str] = Counter()  # in a row
        self._rest: dict[str, float] = {}  # until when nobody takes a slot over
        self._left_out: set[str] = set()
        self._looked = 0.0

    def fill(self, at_once: bool = False) -> list[str]:
        """Hires for free slots, as many as are wanted; the slots. Looks every few seconds, or `at_once`."""
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_S:
            return []
        self._looked, hired = now, []
        wanted = self._wanted()
        for number in range(wanted):
            slot = f"p{number:04d}"
            if len(self.players) >= wanted:
                break
            if slot not in self.players and slot not in self._left_out and now >= self._rest.get(slot, 0.0):
                self.players[slot] = self._hire(slot)
                hired.append(slot)
        return hired

    def works(self, slot: str) -> None:
        """It has finished a call: earlier deaths no longer count."""
        del self._deaths[slot]

    def leave(self, slot: str) -> Any:
        """A player whose node is going; the slot is free, and an actor elsewhere may take it."""
        return self.players.pop(slot)

    def lost(self, slot: str, error: RayError) -> bool:
        """A player died; whether another will take its slot, after a rest that grows with every death in a row.

        Raises `UserError` where it could not begin, or where nobody is left to play.
        """
        cause = cause_of(error)
        if isinstance(cause, UserError):  # another could not begin either
            raise cause from None
        del self.players[slot]
        self._deaths[slot] += 1
        self._rest[slot] = time.monotonic() + (self._deaths[slot] - 1) ** 2
        if self._deaths[slot] < MOST_DEATHS:
            return True
        self._left_out.add(slot)
        if not self.players and not self._deaths.keys() - self._left_out:
            raise UserError(
                f"player {slot} died {MOST_DEATHS} times in a row, and no other is left; the newest file in logs/ "
                "holds its last words"
            )
        return False
