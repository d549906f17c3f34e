"""Where the tables of a corpus lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from selfplay import storage, vouched
from selfplay.errors import UserError
from selfplay.store.table import ELSEWHERE, EPISODES_TABLE

#: Of the file that says where a corpus is.
_MOST_URI_BYTES = 4096
#: The setting of a run that says so.
RUN_CORPUS = "run.corpus"


def places(uri: str) -> Iterator[str]:
    """Where the corpus of `uri` may lie: there, in its folder `corpus`, or where the run there says.

    Raises `UserError` where a run says so that is not known to be this user's: a stranger's folder may lead anywhere.
    """
    root = storage.normalise(uri)
    yield root
    yield storage.join(root, "corpus")
    place = pointed(root)
    if place is not None:
        if not is_own(root, place):
            raise UserError(
                f"the run in {uri} leads to a corpus elsewhere, {place}, and was not begun by this user on this "
                "machine; if that is the corpus you mean, name it itself"
            )
        yield place


def is_own(uri: str, place: str) -> bool:
    """Whether it is a run of this user that leads from `uri` to the corpus at `place`."""
    named = vouched.read(storage.normalise(uri)).get(RUN_CORPUS)
    return named is not None and storage.normalise(named) == place


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
