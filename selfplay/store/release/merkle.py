"""The Merkle tree over the episodes of a release: one hash that names all of them, and short proofs that one is in it.

It is the tree of Certificate Transparency (RFC 6962 section 2.1, RFC 9162 section 2.1) with SHA-256. Its leaves stand
in the order of their episode ids, compared as UTF-8 bytes:

    leaf = H(0x00 ‖ episode_id in UTF-8 ‖ content_digest, 32 bytes)
    node = H(0x01 ‖ left ‖ right)

A node without a neighbour goes up a level unchanged, which is the shape that the RFCs define by splitting n leaves at
the largest power of two below n. The first byte keeps leaves and nodes apart; the digest has a fixed length, so that an
id cannot borrow from it. The tree of no leaf has the hash of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

#: More hashes than this no proof has: a tree of 2**64 leaves is that high.
MOST_LEVELS = 64
_LEAF, _NODE = b"\x00", b"\x01"


def leaf(episode_id: str, content_digest: str) -> bytes:
    """The hash (32 bytes) of one episode. content_digest: hex. Raises `ValueError` for what is no digest."""
    digest = bytes.fromhex(content_digest)
    if len(digest) != 32 or len(content_digest) != 64:
        raise ValueError(f"{content_digest!r} is not a sha256 in hex")
    return sha256(_LEAF + episode_id.encode() + digest).digest()


def leaves(episodes: Iterable[tuple[str, str]]) -> list[bytes]:
    """The leaves of a tree, in their order. episodes: id and content digest (hex) of each, in any order."""
    return [leaf(episode_id, digest) for episode_id, digest in sorted(episodes)]  # code points sort as UTF-8 does


def root(level: Sequence[bytes]) -> bytes:
    """The root (32 bytes) over leaves; seconds for a million."""
    if not level:
        return sha256().digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(level: Sequence[bytes], index: int) -> list[bytes]:
    """The neighbours on the way from leaf `index` to the root, lowest first: the audit path of RFC 6962 2.1.1."""
    found = []
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            found.append(level[beside])
        level, index = _above(level), index >> 1
    return found


def climbed(start: bytes, index: int, size: int, neighbours: Sequence[bytes]) -> bytes:
    """The root that follows from a leaf, its index in a tree of `size` leaves, and its path.

    Raises `ValueError` for a path that no leaf of such a tree has.
    """
    if not 0 <= index < size or len(neighbours) > MOST_LEVELS:
        raise ValueError(f"a tree of {size} leaves has no leaf {index} with {len(neighbours)} neighbours")
    left, last, here = list(neighbours), size - 1, start
    while last:
        if index & 1 or index < last:  # otherwise it has no neighbour
            if not left:
                raise ValueError("the path is too short")
            beside = left.pop(0)
            here = sha256(_NODE + (beside + here if index & 1 else here + beside)).digest()
        index, last = index >> 1, last >> 1
    if left:
        raise ValueError("the path is too long")
    return here


def _above(level: Sequence[bytes]) -> list[bytes]:
    above = [sha256(_NODE + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return [*above, level[-1]] if len(level) % 2 else above
