"""The content digest of a row: sha256 over every other column, from the values themselves.

It survives compaction (files are rewritten, rows are not) and names an edited row even where nobody can replay it.
The last column is the digest of the episode that the same writer sealed before, so each digest covers all episodes of
its writer up to there: who removes, edits, reorders or inserts one must seal every later one anew. Rows of schema
version 1 have no such column, and it is not under their digest.

The bytes hashed for one row are those of its columns in schema order, each depth first:
- integers, booleans and timestamps (microseconds): int64, little endian; null: -2**63;
- floats: float64, little endian; null and NaN: 0x7ff8000000000000;
- strings: all lengths in bytes as int64 (null: -1), then all bytes in UTF-8;
- lists: all lengths as int64 (null: -1), then the elements of all lists, column by column;
- structs: presence as int64 (1 or 0) of each, then the fields of those present, one field after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode.schema import EPISODES

Array = np.ndarray[Any, Any]

_NULL = -(2**63)
_NAN = np.frombuffer((0x7FF8000000000000).to_bytes(8, "little"), "<f8")[0]
#: The column that links a row to the one before; the last under the digest, from schema version 2 on.
LINK = "previous_digest"
#: Columns under the digest, by schema version.
CONTENT_COLUMNS = {
    1: tuple(name for name in EPISODES.names if name not in ("content_digest", LINK)),
    2: tuple(name for name in EPISODES.names if name != "content_digest"),
}


def content_digests(columns: dict[str, pa.Array]) -> list[str]:
    """The digest (hex) of each row, by the schema version that it states: 1, or else the newest that is known here.

    columns: all columns of the schema, whole (no missing nested field).
    """
    linked = (version != 1 for version in columns["schema_version"].to_pylist())
    links = columns[LINK].to_pylist()
    return [
        hashlib.sha256(content + _link(link) if is_linked else content).hexdigest()
        for content, link, is_linked in zip(_contents(columns), links, linked, strict=True)
    ]


def seal(columns: dict[str, pa.Array], links: Sequence[str | None], follows: Sequence[bool]) -> dict[str, pa.Array]:
    """The columns `previous_digest` and `content_digest` of rows that are sealed one after the other.

    columns: all others. links: the digest of the episode before each; of a row that `follows` the row before it here,
    it is taken from there.
    """
    sealed: list[str] = []
    before: list[str | None] = []
    versions = columns["schema_version"].to_pylist()
    for row, (content, version) in enumerate(zip(_contents(columns), versions, strict=True)):
        link = sealed[-1] if follows[row] else links[row]
        before.append(link)
        sealed.append(hashlib.sha256(content if version == 1 else content + _link(link)).hexdigest())
    return {LINK: pa.array(before, pa.string()), "content_digest": pa.array(sealed, pa.string())}


def _link(digest: str | None) -> bytes:
    """The bytes of one value of the column `previous_digest`."""
    if digest is None:
        return (-1).to_bytes(8, "little", signed=True)
    text = digest.encode()
    return len(text).to_bytes(8, "little") + text


def _contents(columns: dict[str, pa.Array]) -> Iterator[bytes]:
    """What is under the digest of each row, but for the link."""
    leaves: list[tuple[memoryview, list[int]]] = []
    names = CONTENT_COLUMNS[1]
    rows = len(columns[names[0]])
    for name in names:
        array, kind = columns[name], EPISODES.field(name).type
        _collect(array if array.type == kind else array.cast(kind), np.arange(rows + 1, dtype=np.int64), leaves)
    for row in range(rows):
        yield b"".join([data[ends[row] : ends[row + 1]] for data, ends in leaves])


def _collect(array: pa.Array, ends: Array, leaves: list[tuple[memoryview, list[int]]]) -> None:
    """Appends the byte strings of `array`, whose values `ends[row]` to `ends[row + 1]` belong to row `row`."""

    def emit(values: Array, at: Array) -> None:
        width = values.dtype.itemsize
        leaves.append((memoryview(values.tobytes()), (at * width).tolist()))

    kind = array.type
    if pa.types.is_struct(kind):
        present = np.asarray(array.is_valid())
        emit(present.astype("<i8"), ends)
        if array.null_count:
            array = array.drop_null()
            ends = np.concatenate([[0], np.cumsum(present)])[ends]
        for child in array.flatten() if len(array) else ():
            _collect(child, ends, leaves)
    elif pa.types.is_list(kind):
        lengths = pc.list_value_length(array)
        emit(_integers(lengths, -1), ends)
        _collect(array.flatten(), _running(lengths)[ends], leaves)
    elif pa.types.is_string(kind):
        lengths = pc.binary_length(array)
        emit(_integers(lengths, -1), ends)
        leaves.append((_utf8(array), _running(lengths)[ends].tolist()))
    elif pa.types.is_floating(kind):
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False).astype("<f8")
        emit(np.where(np.isnan(values), _NAN, values), ends)
    else:
        if pa.types.is_timestamp(kind):
            array = array.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        emit(_integers(array, _NULL), ends)


def _utf8(array: pa.StringArray) -> memoryview:
    """The bytes of all strings, one after the other, nulls left out."""
    if array.null_count:
        array = array.drop_null()
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data).cast("B")[int(ends[0]) : int(ends[-1])]


def _integers(array: pa.Array, null: int) -> Array:
    wide = array.cast(pa.int64())
    return np.asarray(wide.fill_null(null) if wide.null_count else wide).astype("<i8", copy=False)


def _running(lengths: pa.Array) -> Array:
    """`[n + 1]` int64: where each of the values of these lengths begins, nulls being empty."""
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(_integers(lengths, 0), out=out[1:])
    return out
