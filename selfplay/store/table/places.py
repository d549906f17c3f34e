"""Where the tables of a corpus lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from selfplay import vouched
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table.table import ELSEWHERE, EPISODES_TABLE

#: Of the file that says where a corpus is.
_MOST_URI_BYTES = 4096


def places(uri: str) -> Iterator[str]:
    """Where the corpus of `uri` may lie: there, in its folder `corpus`, or where the run there says.

    Raises `UserError` where a run says so that is not known to be this user's: a stranger's folder may lead anywhere.
    """
    root = storage.normalise(uri)
    yield from _near(root)
    place = pointed(root)
    if place is not None:
        if not is_own(root, place):
            raise UserError(
                f"the run in {uri} leads to a corpus elsewhere, {place}, and was not begun by this user on this "
                "machine; if that is the corpus you mean, name it itself"
            )
        yield place


def _near(root: str) -> tuple[str, str]:
    return root, storage.join(root, "corpus")


def is_own(uri: str, place: str) -> bool:
    """Whether it is a run of this user that leads from `uri` to the corpus at `place`."""
    return vouched.read(storage.normalise(uri)).get(ELSEWHERE) == place


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
    """The folder that holds the tables, however damaged they are; None if there is none. Raises as `places` does."""
    return next(filter(_is_corpus, places(uri)), None)


def held(uri: str) -> str | None:
    """The same of a folder that holds them itself, wherever it leads."""
    return next(filter(_is_corpus, _near(storage.normalise(uri))), None)


def _is_corpus(place: str) -> bool:
    return next(storage.entries(storage.join(place, EPISODES_TABLE)), None) is not None
