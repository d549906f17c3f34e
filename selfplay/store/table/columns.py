"""Whether a table has the columns of episodes. A log may be a stranger's, and state any others."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable

from selfplay.episode.schema import ADDED, EPISODES
from selfplay.errors import UserError
from selfplay.store.table.table import SIDE_TABLES, stated_version

#: A table with more columns, and fields in them, is not read.
MOST_FIELDS = 1_000


def refuse_others(table: DeltaTable) -> None:
    """Raises `UserError` where a column, or a field in one, is missing or of another type.

    Columns and fields besides are of a newer version, and do no harm, as long as there are not thousands of them; a
    table of an older version may lack what was added since.
    """
    version = stated_version(table)
    _refuse(table, "episodes", [field for field in EPISODES if ADDED.get(field.name, 1) <= version])


def refuse_other_side(table: DeltaTable, name: str) -> None:
    """The same of the side table with this name."""
    _refuse(table, name, list(SIDE_TABLES[name].schema))


def _refuse(table: DeltaTable, what: str, columns: list[pa.Field]) -> None:
    known, there = pa.struct(columns), pa.struct(list(pa.schema(table.schema().to_arrow())))
    fields = _fields(there)
    if fields > MOST_FIELDS:
        raise UserError(
            f"the table at {table.table_uri} has {fields:,} columns and fields in them, where a table of {what} has "
            f"{_fields(known)}; with more than {MOST_FIELDS:,} it is not read"
        )
    wrong = _difference(known, there, "")
    if wrong is not None:
        raise UserError(f"the table at {table.table_uri} is not one of {what}: {wrong}")


def filled(schema: pa.Schema) -> pa.Schema:
    """The schema with the columns that it lacks because it is of an older version: they read as null."""
    for name in ADDED:
        if schema.get_field_index(name) < 0:
            schema = schema.append(EPISODES.field(name))
    return schema


def _fields(kind: pa.DataType) -> int:
    """Fields of a struct, and those in them."""
    if pa.types.is_struct(kind):
        return sum(1 + _fields(field.type) for field in kind)
    return _fields(kind.value_type) if pa.types.is_list(kind) else 0


def _difference(wanted: pa.DataType, found: pa.DataType, name: str) -> str | None:
    """What `found` lacks or has otherwise, in words; None where nothing."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        for field in wanted:
            at = found.get_field_index(field.name)
            inside = f"{name}.{field.name}" if name else field.name
            wrong = f"{inside} is missing" if at < 0 else _difference(field.type, found.field(at).type, inside)
            if wrong is not None:
                return wrong
        return None
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return _difference(wanted.value_type, found.value_type, name)
    return None if wanted == found else f"{name} is {str(found):.80}, and not {str(wanted):.80}"


def of_newer(schema: pa.Schema) -> bool:
    """Whether there are columns, or fields in one, that are not known here."""
    return _difference(pa.struct(list(schema)), pa.struct(list(EPISODES)), "") is not None
