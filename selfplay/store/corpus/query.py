"""A corpus as SQL: DuckDB views over one version of its tables.

`episodes` is the table as it is stored. `steps`, `candidates`, `seats` and `verdicts` are it unfolded, one row a step,
a weighed action, a seat, a judged criterion; stored integers become numbers in their units there: priors of 1, values
in the game's own utility units from the point of view of the seat to act. Side tables have views of their own names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from selfplay.episode.schema import UNITS
from selfplay.errors import UserError
from selfplay.io import scratch
from selfplay.store.table.snapshot import readable
from selfplay.store.table.table import SIDE_TABLES, first_line

if TYPE_CHECKING:
    import duckdb

    from selfplay.store.table.snapshot import Snapshot

_KEY = "episode_id, kind, run_id, env_id, status, trainable"

VIEWS = {
    "steps": f"""
        SELECT {_KEY}, step, s.seat, s.action, s.joint, s.source, s.simulations, s.full_search,
               s.root_value * scale AS root_value, s.raw_value * scale AS raw_value, s.surprise, s.seat_values,
               len(s.candidates) AS n_candidates
        FROM (SELECT {_KEY}, game.value_scale / {UNITS} AS scale, unnest(game.steps) AS s,
                     generate_subscripts(game.steps, 1) - 1 AS step
              FROM episodes WHERE kind = 'game')""",
    "candidates": f"""
        SELECT {_KEY}, step, seat, chosen, c.action, c.visits, c.prior / {UNITS} AS prior, c.q * scale AS q
        FROM (SELECT {_KEY}, step, s.seat AS seat, s.action AS chosen, scale, unnest(s.candidates) AS c
              FROM (SELECT {_KEY}, game.value_scale / {UNITS} AS scale, unnest(game.steps) AS s,
                           generate_subscripts(game.steps, 1) - 1 AS step
                    FROM episodes WHERE kind = 'game'))""",
    "seats": f"""
        SELECT {_KEY}, seat, "returns"[seat + 1] AS "return",
               list_filter(policy_spans, lambda span: span.seat = seat) AS policy_spans
        FROM (SELECT {_KEY}, "returns", policy_spans, unnest(range(seats)) AS seat FROM episodes)""",
    "verdicts": f"""
        SELECT {_KEY}, v.seat, v.state, v.reward, v.error, c.criterion, c.verifier_id, c.verifier_version, c.score,
               c.low, c.high, c.reason
        FROM (SELECT {_KEY}, v, unnest(CASE WHEN len(v.criteria) > 0 THEN v.criteria ELSE [NULL] END) AS c
              FROM (SELECT {_KEY}, unnest(verdicts) AS v FROM episodes))""",
}

#: Closes a connection to files, network and extensions; the last line keeps SQL from opening it again.
_CONFINED = """
    SET allow_community_extensions = false;
    SET autoinstall_known_extensions = false;
    SET autoload_known_extensions = false;
    SET enable_external_access = false;
    SET lock_configuration = true"""


def connect(corpus: Snapshot, unsafe: bool = False) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views of a corpus. Nothing is copied: queries stream from its files.

    SQL there reads the views and what is registered on the connection, and nothing else: no file, no network, no
    extension, and no setting can be changed. unsafe: without these limits; the SQL can then read and write whatever
    this process can. Queries larger than memory spill to the user's scratch space in both.
    """
    import duckdb

    with readable(corpus.uri):
        corpus.refuse_bombs()
    connection = duckdb.connect()
    connection.register("episodes", corpus.dataset)
    for name, body in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {body}")
    for name in SIDE_TABLES:
        connection.register(name, corpus.table(name))
    spill = scratch.place("spill", f"query-{os.getpid()}-{secrets.token_hex(4)}")
    connection.execute("SET temp_directory = $spill", {"spill": str(spill)})
    if not unsafe:
        connection.execute(_CONFINED)
    return connection


def condition(sql: str) -> str:
    """One condition of SQL in parentheses of its own, to be joined with others. Raises `UserError` for anything else.

    What parses by itself has its parentheses in pairs, and no statement after it; on lines of its own a comment at its
    end hides nothing.
    """
    import duckdb

    inside = f"(\n{sql}\n)"
    try:
        whole = len(duckdb.extract_statements(f"SELECT\n{sql}\n")) == len(duckdb.extract_statements(f"SELECT {inside}"))
    except duckdb.Error as error:
        raise UserError(f"{sql!r} is not one condition in SQL: {first_line(error)}") from error
    if not whole:
        raise UserError(f"{sql!r} is not one condition in SQL")
    return inside


def query(corpus: Snapshot, sql: str, unsafe: bool = False) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one statement. Raises `UserError` with DuckDB's own words where it is wrong.

    unsafe: see `connect`.
    """
    with told():
        answer = connect(corpus, unsafe).sql(sql)
        if answer is None:
            return [], []  # a statement without rows
        table = answer.to_arrow_table()  # Arrow knows times with zones, DuckDB's own rows need another package
        columns = [_whole(column).to_pylist() for column in table.columns]
        return table.column_names, list(zip(*columns, strict=True))


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """DuckDB's sums of integers are decimals without a fraction: as integers, where these can hold them."""
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(pa.int64())
    return column


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns what DuckDB says of a wrong statement, at once or on the way, into a `UserError`."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise UserError(f"the query cannot be answered: {first_line(error)}") from error
