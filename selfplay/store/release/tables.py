"""The side tables as a release knew them: a digest of each of their rows, so that a row that was changed or lost shows.

Side tables only grow, and their files are merged and deleted beside a release; rows stay. So a certificate lists rows,
and not files. Of `annotations`, which may be as many as the steps of a corpus, and `uses`, which no check reads, it
lists none, nor of `releases`, which knows the certificate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from selfplay.store.read import Corpus
from selfplay.store.table import SIDE_TABLES

LISTED = tuple(name for name in SIDE_TABLES if name not in ("annotations", "uses", "releases"))


def row_digests(corpus: Corpus) -> dict[str, list[str]]:
    """The digests of all rows by table, sorted."""
    return {name: sorted(map(row_digest, corpus.table(name).to_pylist())) for name in LISTED}


def row_digest(row: dict[str, Any]) -> str:
    """sha256 (hex) of the row as a JSON object without blanks, keys sorted, nulls left out, times in microseconds.

    A column that a later version adds is null in older rows, and so changes nothing.
    """
    told = {name: _plain(value) for name, value in row.items() if value is not None}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def missing(corpus: Corpus, listed: dict[str, list[str]]) -> Iterable[tuple[str, int]]:
    """Tables that lack rows that a certificate lists, and how many. listed: as of `row_digests`."""
    for name in sorted(listed):
        gone = set(listed[name])
        if gone and name in SIDE_TABLES:
            gone -= set(map(row_digest, corpus.table(name).to_pylist()))
        if gone:
            yield name, len(gone)


def _plain(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    past = value.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * 86400 + past.seconds) * 1_000_000 + past.microseconds
