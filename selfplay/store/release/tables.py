"""The side tables as a release knew them: a digest of each of their rows, so that a row that was changed or lost shows.

Side tables only grow, and their files are merged and deleted beside a release; rows stay. So a certificate lists rows,
and not files. Of `annotations`, which may be as many as the steps of a corpus, and `uses`, which no check reads, it
lists none, nor of `releases`, which knows the certificate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from selfplay.store.table.snapshot import Snapshot
from selfplay.store.table.table import SIDE_TABLES

LISTED = tuple(name for name in SIDE_TABLES if name not in ("annotations", "uses", "releases"))


def row_digests(corpus: Snapshot) -> dict[str, list[str]]:
    """The digests of all rows by table, sorted."""
    return {name: sorted(digests(corpus.table(name))) for name in LISTED}


def digests(rows: pa.Table) -> list[str]:
    """sha256 (hex) of each row as a JSON object without blanks, keys sorted, nulls left out, times in microseconds.

    A column that a later version adds is null in older rows, and so changes nothing.
    """
    for at, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):  # a stranger's may be none that a date can be
            whole = rows.column(at).cast(pa.timestamp("us", field.type.tz)).cast(pa.int64())
            rows = rows.set_column(at, field.name, whole)
    return [_digest({name: value for name, value in row.items() if value is not None}) for row in rows.to_pylist()]


def _digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def missing(corpus: Snapshot, listed: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """Tables that lack rows that a certificate lists, and how many. listed: as of `row_digests`."""
    for name in sorted(listed):
        gone = set(listed[name])
        if gone and name in SIDE_TABLES:
            gone -= set(digests(corpus.table(name)))
        if gone:
            yield name, len(gone)
