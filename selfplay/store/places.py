"""Where the tables of a corpus lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from selfplay import storage
from selfplay.store.table import ELSEWHERE, EPISODES_TABLE


def places(uri: str) -> Iterator[str]:
    """Where the corpus of `uri` may lie: there, in its folder `corpus`, or where the run there says."""
    root = storage.normalise(uri)
    yield root
    yield storage.join(root, "corpus")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        place = storage.read(storage.join(root, ELSEWHERE)).decode(errors="replace").strip()
        if place:  # an empty file: a run writes it anew when it starts
            yield place


def corpus_of(uri: str) -> str | None:
    """The folder that holds the tables, however damaged they are; None if there is none."""
    found = (place for place in places(uri) if next(storage.entries(storage.join(place, EPISODES_TABLE)), None))
    return next(found, None)
