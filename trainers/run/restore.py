"""Restoring a learner from the newest checkpoint that is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfplay.errors import Damaged
from selfplay.io import run_files, sealed


@dataclass(frozen=True)
class Restored:
    """What a learner goes on from.

    checkpoint: its name, None where the learner begins anew. place: its URI. state: of the run, as the checkpoint holds
    it. damaged: newer checkpoints, which are not whole.
    """

    checkpoint: str | None
    place: str | None
    state: dict[str, Any] | None
    damaged: tuple[Damaged, ...]


def restore(run_uri: str, names: Sequence[str], load: Callable[[str], dict[str, Any] | None]) -> Restored:
    """Loads the first of a run's checkpoints that is whole.

    names: the one that the run's state names, then the others, newest first. load: takes a URI, returns the state
    that the checkpoint holds; raises `Damaged`.
    """

    def one(uri: str) -> dict[str, Any] | None:
        try:
            state = load(uri)
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(uri, f"it lacks something ({type(error).__name__}: {error})") from error
        if state is None and uri != places[0]:
            raise Damaged(uri, "it holds no state of the run: an older version of the package wrote it")
        return state

    places = [run_files.checkpoint_uri(run_uri, name) for name in names]
    found = sealed.load_newest_valid(places, one)
    name = found.place.rpartition("/")[2] if found.place else None
    return Restored(name, found.place, found.value, found.damaged)
