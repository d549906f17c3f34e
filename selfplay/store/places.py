"""Where the tables of a corpus lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from selfplay import storage
from selfplay.store.table import ELSEWHERE, EPISODES_TABLE

#: Of the file that says where a corpus is.
_MOST_URI_BYTES = 4096


def places(uri: str) -> Iterator[str]:
    """Where the corpus of `uri` may lie: there, in its folder `corpus`, or where the run there says."""
    root = storage.normalise(uri)
    yield root
    yield storage.join(root, "corpus")
    place = pointed(root)
    if place is not None:
        yield place


def pointed(uri: str) -> str | None:
    """Where the file `corpus.uri` in a run's folder says that its corpus is; None where it says nothing.

    An empty or garbled file says nothing: a run writes it anew when it starts.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        place = storage.read(storage.join(storage.normalise(uri), ELSEWHERE), _MOST_URI_BYTES).decode().strip()
        if place and place.isprintable():
            return storage.normalise(place)
    return None


def corpus_of(uri: str) -> str | None:
    """The folder that holds the tables, however damaged they are; None if there is none."""
    found = (place for place in places(uri) if next(storage.entries(storage.join(place, EPISODES_TABLE)), None))
    return next(found, None)
