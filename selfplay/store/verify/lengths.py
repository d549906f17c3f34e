"""How long games of self-play are before they are cut: of one driver of a run all that are cut are equally long.

The limit is a setting of the run, or else of its environment, which may have another one today. Whatever it was, no
game was longer than one that was cut. Programs of other people, whose episodes have no configuration, may cut as they
like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.store.coverage import FALSE, Check
from selfplay.store.table.counters import WRITERS_PER_DRIVER


class Lengths:
    """Of each driver, (run, epoch): the moves of its longest game, and by their moves the first of those cut."""

    def __init__(self) -> None:
        self._longest: dict[tuple[str, int], int] = {}
        self._cut: dict[tuple[str, int], dict[int, str]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """row: episode_id, run_id, epoch, kind, origin, status, config_digest and n_steps of an episode."""
        if row["kind"] == "game" and row["origin"] == "self_play" and row["config_digest"] is not None:
            driver, moves = (row["run_id"], (row["epoch"] or 0) // WRITERS_PER_DRIVER), row["n_steps"] or 0
            self._longest[driver] = max(moves, self._longest.get(driver, 0))
            if row["status"] == "truncated":
                self._cut.setdefault(driver, {}).setdefault(moves, str(row["episode_id"]))

    def lies(self) -> Iterator[Check]:
        """After all episodes; of games that were cut after as many moves, the first is told."""
        for driver, cut in self._cut.items():
            for moves, name in sorted(cut.items()):
                if moves < self._longest[driver]:
                    longest = self._longest[driver]
                    reason = f"it was cut after {moves} moves, and a game of its run went on for {longest}"
                    yield Check(name, FALSE, reason)
