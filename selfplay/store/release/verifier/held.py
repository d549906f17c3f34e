"""Weights by their digest: in folders of who asks, or in a release, as the files of its certificate."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from selfplay.store.release.verifier.language import Speaker
from selfplay.store.release.verifier.nets import Net, digest_of, stated, tensors_of
from selfplay.store.release.verifier.rows import MOST_FILE_BYTES, Lie, Row, Unknown
from selfplay.store.release.verifier.table import read

MOST_HELD = 4
NOT_THERE = "the weights that it names are not there, or it names none"


class Weights:
    """The nets whose weights are in some folders, or in a release: by their digest."""

    def __init__(self, folders: list[str], policies: list[Row], places: tuple[str, ...] = (), listed: Row | None = None
                 ) -> None:  # fmt: skip
        """places: where the files of a release may lie. listed: their sha256 by name, as its certificate has them."""
        self.rows, self.places = {row["digest"]: row for row in policies}, places
        self.files: dict[str, Path | tuple[str, str]] = {}  # a file here, or the name and sha256 of one of a release
        self.nets: dict[str, Net | Speaker | Unknown | Lie] = {}
        for name, sha256 in (listed or {}).items():
            if re.fullmatch(r"[0-9a-f]{64}\.safetensors", name):
                self.files[name.partition(".")[0]] = (name, sha256)
        for file in sorted(one for folder in folders for one in Path(folder).rglob("*.safetensors")):
            try:
                self.files[digest_of(tensors_of(file.read_bytes()))] = file
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # other tensors: nothing names them

    def find(self, digest: str) -> Net | Speaker:
        """Raises `Unknown` where there is none, and `Lie` where the release has another."""
        if digest not in self.files:
            raise Unknown(NOT_THERE)
        if digest not in self.nets:
            for old in list(self.nets)[: 1 - MOST_HELD]:
                del self.nets[old]
            try:
                self.nets[digest] = self.load(digest)
            except (Unknown, Lie) as reason:
                self.nets[digest] = reason
        found = self.nets[digest] = self.nets.pop(digest)  # used last
        if isinstance(found, Unknown | Lie):
            raise type(found)(str(found))
        return found

    def load(self, digest: str) -> Net | Speaker:
        tensors = tensors_of(self.bytes_of(self.files[digest]))
        if digest_of(tensors) != digest:
            raise Lie(f"the file of the weights {digest[:12]} holds others")
        row = self.rows.get(digest)
        if any(name.startswith("model.") for name in tensors):
            return Speaker((row or {}).get("net") or "", tensors)
        return stated(row, tensors)

    def bytes_of(self, file: Path | tuple[str, str]) -> bytes:
        if isinstance(file, Path):
            return file.read_bytes()
        name, sha256 = file
        for place in self.places:
            try:
                data = read(place, name, MOST_FILE_BYTES)
            except FileNotFoundError:
                continue
            if hashlib.sha256(data).hexdigest() != sha256:
                raise Lie(f"the file {name[:12]}… of the release was changed: its sha256 is not the certified one")
            return data
        raise Lie(f"the file {name[:12]}… of the release is missing")
