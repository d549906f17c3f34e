"""Edits of the table `releases`: what `corpus verify --release` and the released verify_corpus.py say of each.

The certificate is left as it was: it is signed, and the row must agree with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

Edit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Case:
    """column: of `releases`, or a field of its JSON. edit: changes the row in place. words: stand in what is said.

    code: the exit code of `corpus verify --release`; 2 where there is no release of that name, or no version, any more.
    """

    column: str
    edit: Edit
    code: int
    words: str


def _put(column: str, change: Callable[[Any], Any]) -> Edit:
    def edit(row: dict[str, Any]) -> None:
        row[column] = change(row[column])

    return edit


def _within(name: str, value: Any) -> Edit:
    """Sets a field of the JSON in the column `certificate`; None: takes it out."""

    def edit(row: dict[str, Any]) -> None:
        kept = json.loads(row["certificate"])
        if value is None:
            del kept[name]
        else:
            kept[name] = value
        row["certificate"] = json.dumps(kept)

    return edit


_ROW = "of its row in `releases` contradicts certificate.json"
CASES = [
    Case("name", _put("name", lambda name: "another"), 2, "has no release first"),
    Case("table_version", _put("table_version", lambda version: version - 1), 1, f"table_version {_ROW}"),
    Case("table_version", _put("table_version", lambda version: version + 99), 2, "has no version"),
    Case("created_at", _put("created_at", lambda when: when + timedelta(days=1)), 1, f"created_at {_ROW}"),
    Case("note", _put("note", lambda note: "better than it is"), 1, f"note {_ROW}"),
    Case("certificate", _put("certificate", lambda text: "[]"), 2, "has no valid certificate"),
    Case("certificate", _put("certificate", lambda text: "{"), 2, "has no valid certificate"),
    Case("certificate.sha256", _within("sha256", "0" * 64), 1, f"certificate.sha256 {_ROW}"),
    Case("certificate.episodes", _within("episodes", 3), 1, f"certificate.episodes {_ROW}"),
    Case("certificate.content_digest", _within("content_digest", "0" * 64), 1, f"certificate.content_digest {_ROW}"),
    Case("certificate.merkle_root", _within("merkle_root", "0" * 64), 1, f"certificate.merkle_root {_ROW}"),
    Case("certificate.merkle_root", _within("merkle_root", None), 1, f"certificate.merkle_root {_ROW}"),
    Case("certificate.files_digest", _within("files_digest", "0" * 64), 1, f"certificate.files_digest {_ROW}"),
    Case("certificate.key", _within("key", f"ed25519:{'0' * 64}"), 1, f"certificate.key {_ROW}"),
    Case("certificate.key", _within("key", None), 1, f"certificate.key {_ROW}"),
    Case("certificate.verification", _within("verification", {"true": 1}), 1, f"certificate.verification {_ROW}"),
    Case("certificate.release_files", _within("release_files", {}), 1, f"certificate.release_files {_ROW}"),
]
