"""Where the checks stand: which check, which game or problem, after which moves.

The checks write it before each step that runs an author's code. The process that watches them reads it from shared
memory, so it knows where they stood even when that code hangs or kills its process.
"""

from __future__ import annotations

import mmap
import struct

SIZE = 2**16
#: Steps taken so far, and the lengths of the two texts that follow: the check's name, and the place within it.
_HEAD = struct.Struct("=QII")
_NAME_AT, _PLACE_AT = _HEAD.size, 256

Buffer = bytearray | mmap.mmap


class Progress:
    """A place in `SIZE` bytes of memory. Written by one process; others may read it at any time."""

    def __init__(self, memory: Buffer) -> None:
        self._memory = memory
        self._steps, self._name, self._end = 0, 0, _PLACE_AT

    def check(self, name: str) -> None:
        """A check begins."""
        written = name.encode()[: _PLACE_AT - _NAME_AT]
        self._memory[_NAME_AT : _NAME_AT + len(written)] = written
        self._name = len(written)
        self.at("")

    def at(self, place: str) -> None:
        """The checks have come to a game or a problem: "game 3", "seed 2, difficulty 4"."""
        self._end = _PLACE_AT
        self._append(place.encode())

    def move(self, move: object) -> None:
        """A move is about to be played in the game that was named last."""
        self._append(f" {move}".replace(", ", ",").encode())

    def doing(self, what: str) -> None:
        """A function of the author's is about to be called; until the next step, this is part of the place."""
        place = self._end
        self._append(f", {what}".encode())
        self._end = place

    def step(self) -> None:
        """Something was done."""
        self._append(b"")

    def _append(self, text: bytes) -> None:
        end = self._end + len(text)
        if end <= SIZE:
            self._memory[self._end : end] = text
            self._end = end
        self._steps += 1
        _HEAD.pack_into(self._memory, 0, self._steps, self._name, self._end)

    @property
    def place(self) -> str:
        """What was written last."""
        return read(self._memory)[2]


def read(memory: Buffer) -> tuple[int, str, str]:
    """(steps so far, name of the check, place within it)."""
    steps, name, end = _HEAD.unpack_from(memory, 0)
    texts = bytes(memory[_NAME_AT : _NAME_AT + name]), bytes(memory[_PLACE_AT : max(end, _PLACE_AT)])
    return steps, *(text.decode(errors="replace") for text in texts)  # type: ignore[return-value]


#: Of this process; its memory is its own until `share` gives it another.
_progress = Progress(bytearray(SIZE))


def progress() -> Progress:
    return _progress


def share(descriptor: int) -> None:
    """From now on the checks of this process write to a file of `SIZE` bytes that another process reads."""
    global _progress
    _progress = Progress(mmap.mmap(descriptor, SIZE))
