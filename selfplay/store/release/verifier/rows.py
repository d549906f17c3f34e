"""What a row is, and its content digest: sha256 over all its other columns."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
BATCH_ROWS = 256
#: Stored priors are in 1/UNITS, stored values in value_scale/UNITS.
UNITS = 32767
CHANCE, SIMULTANEOUS = -1, -2
#: What a file may hold: an honest row group is far below these, and honest columns shrink by two to twenty.
SMALL_GROUP_BYTES, MOST_GROUP_BYTES, MOST_RATIO = 256 * 2**20, 4 * 2**30, 100
MOST_FILE_BYTES, MOST_CERTIFICATE_BYTES = 8 * 2**30, 256 * 2**20
#: Bytes of a side table, of that of tokenizers, and of a configuration in one; the columns of each that are relied on,
#: with what their types begin with.
MOST_TABLE_BYTES, MOST_TOKENIZERS_BYTES, MOST_CONFIG_BYTES = 256 * 2**20, 2**30, 4 * 2**20
#: Bytes of an entry of a table's log and of a checkpoint, and what a checkpoint may unpack to.
MOST_ENTRY_BYTES, MOST_CHECKPOINT_BYTES, MOST_UNPACKED_BYTES = 256 * 2**20, 2**30, 2 * 2**30
#: A row of a side table counts as so many bytes at least: as plain values it takes no fewer.
LEAST_ROW_BYTES = 256
RELIED_ON = {
    "environments": dict.fromkeys(("env_id", "ruleset_digest"), "string"),
    "runs": {"run_id": "string", "epoch": "int64", "started_at": "timestamp"}
    | dict.fromkeys(("env_id", "config", "config_digest", "code_commit", "package_version", "host"), "string"),
    "policies": {"policy_id": "string", "version": "int64", "digest": "string", "created_at": "timestamp"},
    "tokenizers": {"digest": "string", "files": "string"},
    "closings": {"run_id": "string", "epoch": "int64", "table_version": "int64", "episodes": "int64",
                 "writers": "list<element: struct<slot: string, epoch: int64, episodes: int64"},
    "deletions": {"run_id": "string", "table_version": "int64", "episodes": "int64",
                  "writers": "list<element: struct<slot: string, epoch: int64, first: int64, last: int64"},
}  # fmt: skip
#: The name of a release is that of a folder; the names of side tables are.
RELEASE_NAME, TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"), re.compile("[a-z_]{1,64}")
PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._=-]*/)*[A-Za-z0-9_][A-Za-z0-9._+-]*\.parquet")
#: Games that can end a process, or take minutes, with parameters of small numbers.
FRAGILE = ("blotto", "bridge_uncontested_bidding", "gomoku", "hanabi", "negotiation", "universal_poker", "yacht")
STATUS_OF = {"terminal": "ok", "resignation": "ok", "ply_limit": "truncated", "aborted": "aborted"}
#: The newest schema version that is known here.
SCHEMA_VERSION = 2
#: What the content digest covers: these columns, in this order; from schema version 2 on LINK, too, the last.
COLUMNS = """episode_id kind run_id schema_version slot epoch number status trainable error origin parents licence
env_id env_version ruleset_digest seed code_commit config_digest package_version host started_at wall_ms seats n_steps
returns policy_spans verdicts game reasoning control""".split()
#: The content digest of the episode that the same writer (run, slot, epoch) sealed before; null for its first.
LINK = "previous_digest"


class Lie(Exception):
    """What is false, in words."""


class Unknown(Exception):
    """Why something cannot be decided here, in words."""


def parsed(text: Any) -> Row:
    """A configuration out of its JSON; {} for what is none."""
    try:
        found = json.loads(text) if len(text) <= MOST_CONFIG_BYTES else None
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def content_digest(row: Row, schema: pa.Schema) -> str:
    """sha256 (hex) of the row's values, column after column; `content_digest` itself is left out."""
    content = b"".join(encoded(schema.field(name).type, [row[name]]) for name in COLUMNS)
    link = encoded(pa.string(), [row.get(LINK)]) if row["schema_version"] > 1 else b""
    return hashlib.sha256(content + link).hexdigest()


def encoded(kind: pa.DataType, values: list[Any]) -> bytes:
    """The bytes of some values of one type, depth first; numbers little endian.

    Integers, booleans, timestamps (microseconds): int64, null -2**63. Floats: float64, null and NaN one fixed NaN.
    Strings: all lengths in bytes (null -1), then all bytes (UTF-8). Lists: all lengths (null -1), then all elements.
    Structs: 1 or 0 (null) for each, then the values of those present, field after field.
    """
    if pa.types.is_struct(kind):
        present = [value for value in values if value is not None]
        fields = [encoded(field.type, [value[field.name] for value in present]) for field in kind] if present else []
        return whole([value is not None for value in values]) + b"".join(fields)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        elements = [element for value in values if value is not None for element in value]
        return whole([-1 if value is None else len(value) for value in values]) + encoded(kind.value_type, elements)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = [None if value is None else value.encode() for value in values]
        return whole([-1 if text is None else len(text) for text in texts]) + b"".join(text or b"" for text in texts)
    if pa.types.is_floating(kind):
        nan = struct.pack("<Q", 0x7FF8000000000000)
        return b"".join(nan if value is None or value != value else struct.pack("<d", value) for value in values)
    return whole([-(2**63) if value is None else int(value) for value in values])


def whole(numbers: list[Any]) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)
