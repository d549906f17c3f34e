"""Weights on hand, found by their digest: whatever a corpus says of where they lie is not followed."""

from __future__ import annotations

from collections.abc import Sequence

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.run_files import WEIGHTS_FOLDER
from selfplay.nets import weights
from selfplay.store.table.places import is_own

#: Weights that are in memory at once.
_IN_MEMORY = 4


class Kept:
    """The weights in some folders: of runs, or folders of weights files."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)
        self._files = [uri for folder in folders for uri in _files(folder)]
        self._unread = set(self._files)
        self._places: dict[str, str] = {}
        self._loaded: dict[str, weights.Tensors] = {}

    def load(self, digest: str, version: int) -> weights.Tensors | None:
        """The weights of that sha256 (hex), looked for first where that version would lie; None where they are not."""
        if digest in self._loaded:
            self._loaded[digest] = self._loaded.pop(digest)  # used last
            return self._loaded[digest]
        if digest not in self._places:
            self._find(digest, version)
        place = self._places.get(digest)
        return None if place is None else self._read(place, digest)

    def file(self, digest: str, version: int) -> bytes | None:
        """These weights as a file that says nothing but what they are; None where they are not here."""
        tensors = self.load(digest, version)
        return None if tensors is None else weights.to_bytes(tensors, {"kind": "weights", "version": version})

    def digests(self) -> set[str]:
        """Of all weights here."""
        for uri in sorted(self._unread):
            self._read(uri, "")
        return set(self._places)

    def _find(self, digest: str, version: int) -> None:
        likely = f"/{version:06d}.safetensors"
        for uri in sorted(self._unread, key=lambda uri: not uri.endswith(likely)):
            if self._read(uri, digest) is not None:
                return

    def _read(self, uri: str, wanted: str) -> weights.Tensors | None:
        self._unread.discard(uri)
        try:
            tensors, meta = weights.load(uri)
        except (OSError, UserError):
            return None  # no weights of ours, or damaged: they prove nothing
        found = str(meta["digest"])  # `load` has compared it with what the tensors are
        self._places[found] = uri
        if found != wanted:
            return None
        self._loaded[found] = tensors
        while len(self._loaded) > _IN_MEMORY:
            del self._loaded[next(iter(self._loaded))]
        return tensors


def folders_of(asked: str, corpus: str) -> list[str]:
    """Where the weights of a corpus may lie: the run's folder that was named, and the one that the corpus is in.

    asked: as the user named it. corpus: where its tables are. A run whose corpus lies elsewhere is only looked into
    where it was named, or is this user's.
    """
    asked, corpus = storage.normalise(asked), storage.normalise(corpus)
    around = corpus.removesuffix("/corpus")
    found = [around] if around != corpus else []
    if asked not in (corpus, *found) and (is_own(asked, corpus) or storage.is_below(corpus, asked)):
        found.append(asked)
    return found


def refuse_empty(folder: str) -> str:
    """The folder. Raises `UserError` where it holds no weights."""
    if not _files(storage.normalise(folder)):
        raise UserError(f"{folder} holds no weights; give the folder of a run, or one with its *.safetensors")
    return storage.normalise(folder)


def _files(folder: str) -> list[str]:
    for place in (storage.join(folder, WEIGHTS_FOLDER), folder):
        names = [name for name in storage.names(place) if name.endswith(".safetensors")]
        if names:
            return [storage.join(place, name) for name in sorted(names)]
    return []
