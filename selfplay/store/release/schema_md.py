"""SCHEMA.md: every column of every table, from the comments that its schema carries."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from selfplay.episode.schema import EPISODES, SCHEMA_VERSION, UNITS
from selfplay.store.table.table import SIDE_TABLES

_HEAD = f"""# Schema

Schema version {SCHEMA_VERSION}. Every table is a Delta Lake table: read it through its log, never by a pattern of file
names.

- Values (`q`, `root_value`, `raw_value`) are expected returns in the game's own utility units, from the point of view
  of the seat to act; they are stored as whole numbers in units of `game.value_scale` / {UNITS}. Priors are stored in
  units of 1 / {UNITS}. Visits are exact. Rounding is at most half a unit.
- `returns` has one entry a seat, each from that seat's own point of view. Where a seat resigned (`game.ended_by`),
  nobody saw the end: the entries are minus `game.value_scale` for that seat and plus `game.value_scale` for the other.
  In games with scores that is the largest possible loss, and more than the game would have ended with.
- Each episode names in `previous_digest` the content digest of the one that the same writer (run, slot, epoch) sealed
  before, so that what is removed, reordered or put in between shows. The table `closings` says how many episodes each
  writer had archived when its driver ended, and the digest of the last (or, where a file could not be read then, that
  nobody counted); `deletions` what was taken out, and why. Rows of schema version 1 have no link. Who seals all rows of
  a writer anew, and rewrites its closing, is not found this way, only by the signature of a release.
- "Null" says whether a value may be null where the row, struct or list that holds it is there.
- `a.b` is field b of struct a; `a[].b` is field b of each element of list a.
"""


def schema_md() -> str:
    """The whole text."""
    said = "One row an episode, partitioned by kind and run_id."
    nulls = {path for path, field in columns(EPISODES) if names_null(field)}
    sections = [_section("episodes", said, EPISODES, nulls)]
    for name, side in SIDE_TABLES.items():
        said = f"Append-only; a row is named by {', '.join(f'`{column}`' for column in side.key)}."
        nulls = {path for path, field in columns(side.schema) if path not in side.key or names_null(field)}
        sections.append(_section(name, said, side.schema, nulls))
    return "\n".join([_HEAD, *sections])


def type_name(kind: pa.DataType) -> str:
    """Short and exact: int32, timestamp[us, tz=UTC], list<int32>, struct, list<struct>."""
    if pa.types.is_struct(kind):
        return "struct"
    return f"list<{type_name(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def columns(schema: pa.Schema) -> Iterator[tuple[str, pa.Field]]:
    """Every column, with the name it has in SCHEMA.md, nested ones after those that hold them."""
    for field in schema:
        yield from _unfolded(field.name, field)


def comment(field: pa.Field) -> str:
    text: bytes = (field.metadata or {}).get(b"comment", b"")
    return text.decode()


def names_null(field: pa.Field) -> bool:
    """Whether its comment says what null means."""
    return "null" in comment(field)


def _unfolded(name: str, field: pa.Field) -> Iterator[tuple[str, pa.Field]]:
    yield name, field
    kind = field.type
    if pa.types.is_list(kind):
        name, kind = f"{name}[]", kind.value_type
    for child in kind if pa.types.is_struct(kind) else ():
        yield from _unfolded(f"{name}.{child.name}", child)


def _section(name: str, said: str, schema: pa.Schema, nulls: set[str]) -> str:
    lines = [f"## {name}", "", said, "", "| column | type | null | meaning |", "|---|---|---|---|"]
    for path, field in columns(schema):
        meaning = comment(field).replace("|", "\\|")
        null = "yes" if path in nulls else "no"
        lines.append(f"| `{path}` | {type_name(field.type)} | {null} | {meaning} |")
    return "\n".join([*lines, ""])
