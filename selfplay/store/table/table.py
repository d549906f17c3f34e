"""The tables of a corpus: Delta Lake tables below one URI.

`episodes` holds every episode, partitioned by kind and run. The side tables are append-only, and small: a row is
added once for each key, however many processes add it at the same time.
"""

from __future__ import annotations

import operator
import random
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.table import MAX_SUPPORTED_READER_VERSION, SUPPORTED_READER_FEATURES
from deltalake.transaction import AddAction, create_table_with_add_actions

from selfplay.episode.schema import ADDED, EPISODES, PARTITION_BY, SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.object_store import Patience
from selfplay.store.table import log

#: In a run's folder: where its corpus lies, if it shares one.
ELSEWHERE = "corpus.uri"
EPISODES_TABLE = "episodes"
#: How often delta-rs itself retries a commit that lost a race against an unrelated one (its default lost 20 of 240).
MAX_COMMIT_RETRIES = 200
#: Columns whose smallest and largest value every file of episodes has in the log, so that readers can skip files.
#: They must be declared to Delta: for any other column with values in some of the statistics, deltalake's pyarrow
#: dataset takes the missing bounds for nulls, and a filter on that column then silently finds nothing.
STATISTICS = ("schema_version", "slot", "epoch", "number", "status")
#: Names of data files, as our writers and Delta's give them, and paths of such files below a table.
_FILE = r"[A-Za-z0-9_][A-Za-z0-9._+-]*\.parquet"
_PLAIN_PATH = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9._=-]*/)*{_FILE}")
#: Features that deltalake knows and its pyarrow dataset does not follow.
_NOT_BY_PYARROW = {"columnMapping", "deletionVectors"}
_VERSION_NOTE = re.compile(r"schema_version=(\d{1,18})")
#: What the system said of an error: any, and that nothing more can be written.
_SYSTEM = re.compile(r"[A-Z][\w ',.-]* \(os error [0-9]{1,4}\)")
_FULL = re.compile(r"\(os error (?:28|122)\)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _schema(**fields: tuple[pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"comment": note}) for name, (kind, note) in fields.items()])


_TEXT, _WHOLE, _TIME = pa.string(), pa.int64(), pa.timestamp("us", tz="UTC")
#: What a replay learner did. "refill": its window was filled anew from a version of the episodes table, after
#: `first_step` steps. "add": the episodes `first` to `last` of a slot and epoch came in. "train": steps `first_step` to
#: `last_step`, inclusive.
_EVENT = pa.struct(
    list(
        _schema(
            what=(_TEXT, "refill, add or train"),
            table_version=(_WHOLE, "refill: the version of the episodes table that was read, else null"),
            slot=(_TEXT, "add: the slot of the episodes, else null"),
            epoch=(_WHOLE, "add: their epoch, else null"),
            first=(_WHOLE, "add: number of the first, else null"),
            last=(_WHOLE, "add: number of the last, inclusive, else null"),
            first_step=(_WHOLE, "train: first optimiser step; refill: steps before it; else null"),
            last_step=(_WHOLE, "train: last optimiser step, inclusive, else null"),
        )
    )
)
#: What one writer had archived when its driver ended.
_ENDED = pa.struct(
    list(
        _schema(
            slot=(_TEXT, "of the writer"),
            epoch=(_WHOLE, "of the writer"),
            episodes=(_WHOLE, "that it had archived: the number of the last, plus one"),
            aborted=(_WHOLE, "those of them with the status aborted"),
            head=(_TEXT, "content_digest of the last"),
        )
    )
)
#: Episodes of one writer that were taken out.
_TAKEN_OUT = pa.struct(
    list(
        _schema(
            slot=(_TEXT, "of the writer"),
            epoch=(_WHOLE, "of the writer"),
            first=(_WHOLE, "number of the first"),
            last=(_WHOLE, "number of the last, inclusive"),
            head=(_TEXT, "content_digest of the last, to which the next is linked; null where it could not be read"),
        )
    )
)


@dataclass(frozen=True)
class SideTable:
    """schema: columns, each with its meaning. key: the columns whose values name a row.

    series: the columns whose values name a series of rows, of which there are few; of two processes that add to one
    series at once, one looks again. number: a column of the key that grows along a series, so that a row with a higher
    one is known to be new; None: whether a row is there is looked up.
    """

    schema: pa.Schema
    key: tuple[str, ...]
    series: tuple[str, ...]
    number: str | None = None


SIDE_TABLES: dict[str, SideTable] = {
    "environments": SideTable(
        _schema(
            env_id=(_TEXT, "with its version: connect_four-v0"),
            ruleset_digest=(_TEXT, "sha256 (hex) of the golden playthrough and the source"),
            game_string=(_TEXT, "the full OpenSpiel game string; null if it is no game"),
            package=(_TEXT, "distribution that brings it; null for a single file"),
            package_version=(_TEXT, "its version"),
            source_digest=(_TEXT, "sha256 (hex) of the source file; null where there is none"),
            source=(_TEXT, "source text of one-file environments; run it in a sandbox only"),
            licence=(_TEXT, "SPDX id of its episodes"),
            added_at=(_TIME, "when the row was written"),
        ),
        ("env_id", "ruleset_digest"),
        ("env_id",),
    ),
    "runs": SideTable(
        _schema(
            run_id=(_TEXT, "the run"),
            epoch=(_WHOLE, "incarnation of its driver"),
            started_at=(_TIME, "when this incarnation began"),
            env_id=(_TEXT, "what it plays"),
            config=(_TEXT, "resolved configuration, JSON"),
            config_digest=(_TEXT, "sha256 (hex) of it"),
            code_commit=(_TEXT, "git commit; null outside a clone"),
            package_version=(_TEXT, "of selfplay-factory"),
            host=(_TEXT, "machine of the driver"),
            run_uri=(_TEXT, "run folder, as given"),
        ),
        ("run_id", "epoch"),
        ("run_id",),
        "epoch",
    ),
    "closings": SideTable(
        _schema(
            run_id=(_TEXT, "the run"),
            epoch=(_WHOLE, "incarnation of its driver, that has ended"),
            how=(
                _TEXT,
                "finished, interrupted, or taken over: it was killed, and counted by the next incarnation; or not "
                "counted: a file was damaged, and nobody knows",
            ),
            table_version=(_WHOLE, "a version of the episodes table that holds all that it archived"),
            episodes=(_WHOLE, "that its writers had archived, all together"),
            aborted=(_WHOLE, "those of them with the status aborted"),
            lost=(_WHOLE, "episodes that died with their process, before they were sealed; null: not known"),
            writers=(pa.list_(pa.field("element", _ENDED)), "each writer that archived anything"),
            closed_at=(_TIME, "when the row was written"),
        ),
        ("run_id", "epoch"),
        ("run_id",),
        "epoch",
    ),
    "deletions": SideTable(
        _schema(
            run_id=(_TEXT, "the run whose episodes were taken out"),
            table_version=(_WHOLE, "version of the episodes table that holds them; a later one does not"),
            episodes=(_WHOLE, "how many"),
            writers=(
                pa.list_(pa.field("element", _TAKEN_OUT)),
                "which, writer by writer; null: any of the run, as a damaged file did not say",
            ),
            reason=(_TEXT, "why"),
            command=(_TEXT, "what took them out: delete-run, repair"),
            deleted_at=(_TIME, "when the row was written; the episodes were taken out after that"),
        ),
        ("run_id", "table_version", "deleted_at"),  # one that was cut short left an entry of the same version
        ("run_id",),
        "table_version",
    ),
    "policies": SideTable(
        _schema(
            policy_id=(_TEXT, "the policy, such as the run's net"),
            version=(_WHOLE, "its version; 0 before any training"),
            digest=(_TEXT, "sha256 (hex) of its weights"),
            run_id=(_TEXT, "the run that trained it"),
            created_at=(_TIME, "when it was published"),
            parent_digest=(_TEXT, "the weights it was trained from; null for the first"),
            training_steps=(_WHOLE, "optimiser steps so far"),
            training_samples=(_WHOLE, "samples seen so far"),
            uri=(_TEXT, "where the bytes were put; they may be gone"),
            net=(_TEXT, "configuration of the net, JSON"),
            metrics=(_TEXT, "measured at publication, JSON"),
        ),
        ("policy_id", "version", "digest"),
        ("policy_id",),
        "version",
    ),
    "tokenizers": SideTable(
        _schema(
            digest=(_TEXT, "sha256 (hex) of `files`: what reasoning.tokenizer names"),
            files=(_TEXT, "the files that make it, name -> text, JSON with sorted keys; data, never to be run"),
            added_at=(_TIME, "when the row was written"),
        ),
        ("digest",),
        ("digest",),
    ),
    "uses": SideTable(
        _schema(
            run_id=(_TEXT, "the run that learned"),
            version_in=(_WHOLE, "version of the weights before"),
            digest_in=(_TEXT, "their digest"),
            version_out=(_WHOLE, "version published after"),
            digest_out=(_TEXT, "its digest"),
            first_step=(_WHOLE, "first optimiser step, from 0; those that earlier rows hold, too, a crash had undone"),
            last_step=(_WHOLE, "last optimiser step, inclusive"),
            table_version=(_WHOLE, "a version of the episodes table that holds all episodes named here"),
            events=(pa.list_(pa.field("element", _EVENT)), "what the learner did, in order; see trainers.uses"),
            sampler=(_TEXT, "seed, batch, learners and window of the sampler, JSON"),
            code_commit=(_TEXT, "code of the sampler"),
            episodes=(pa.list_(pa.field("element", _TEXT)), "explicit episode ids of on-policy steps, else null"),
            recorded_at=(_TIME, "when the row was written"),
        ),
        ("run_id", "version_out", "digest_out"),
        ("run_id",),
        "version_out",
    ),
    "annotations": SideTable(
        _schema(
            episode_id=(_TEXT, "what it is about"),
            step=(pa.int32(), "index of the step, null for the whole episode"),
            name=(_TEXT, "what is said"),
            value=(_TEXT, "JSON"),
            author=(_TEXT, "by whom"),
            source=(_TEXT, "by which tool and version"),
            recorded_at=(_TIME, "when"),
        ),
        ("episode_id", "step", "name", "author", "recorded_at"),
        ("author",),
    ),
    "releases": SideTable(
        _schema(
            name=(_TEXT, "of the release"),
            table_version=(_WHOLE, "version of the episodes table"),
            created_at=(_TIME, "when"),
            note=(_TEXT, "what for"),
            certificate=(_TEXT, "hashes and verification results, JSON"),
        ),
        ("name",),
        ("name",),
    ),
}


def is_name(name: str) -> bool:
    """Whether `name` can be part of a path and of an episode id."""
    return _NAME.fullmatch(name) is not None


def check_name(what: str, name: str) -> str:
    """`name`, if it can be part of a path and of an episode id; else `UserError`."""
    if not is_name(name):
        raise UserError(f"{what} {name!r} may hold letters, digits, dot, dash and underscore only")
    return name


def episodes_uri(corpus_uri: str) -> str:
    return storage.join(storage.normalise(corpus_uri), EPISODES_TABLE)


def open_table(table_uri: str, version: int | datetime | None = None) -> DeltaTable:
    """The table as of `version`, a number or a time with its zone (None: now).

    Raises `TableNotFoundError`, `DamagedLog`, and `UserError` for a newer schema and for a log that names files
    outside the table.
    """
    patience = Patience()
    while True:
        try:
            table = _open(table_uri, version)
        except (DeltaError, OSError) as error:
            if patience.again(error):
                continue
            if isinstance(error, TableNotFoundError):
                raise
            raise log.explain(table_uri, error) from error
        else:
            check_schema_version(table)
            refuse_features(table)
            log.refuse_damage(table_uri, table.version())
            refuse_outside(table)
            return table


def _open(table_uri: str, version: int | datetime | None) -> DeltaTable:
    number = version if isinstance(version, int) else None
    log.refuse_unfit(table_uri, 0 if isinstance(version, datetime) else number)
    table = DeltaTable(table_uri, version=number, storage_options=storage.deltalake_options(table_uri) or None)
    if isinstance(version, datetime):
        table.load_as_version(version)
        if table.history(1)[0]["timestamp"] > version.timestamp() * 1000:
            raise DeltaError(f"the table is younger than {version.isoformat()}")
    return table


def stated_version(table: DeltaTable) -> int:
    """The schema version that the log states; the one known here where it states none."""
    note = _VERSION_NOTE.search(table.metadata().description or "")
    return int(note.group(1)) if note else SCHEMA_VERSION


def check_schema_version(table: DeltaTable) -> None:
    found = stated_version(table)
    if found > SCHEMA_VERSION:
        raise UserError(
            f"the corpus at {table.table_uri} has schema version {found}, and this version of the package knows "
            f"{SCHEMA_VERSION}; update the package"
        )


def refuse_features(table: DeltaTable) -> None:
    """Raises `UserError` where the log asks of its readers what those used here, pyarrow's, do not do.

    Columns under other names (column mapping) would be read without a word, as something else than elsewhere.
    """
    protocol = table.protocol()
    known = set(SUPPORTED_READER_FEATURES) - _NOT_BY_PYARROW
    asked = sorted(set(protocol.reader_features or ()) - known)
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        asked = [*asked, "columnMapping"]
    if protocol.min_reader_version > MAX_SUPPORTED_READER_VERSION:
        asked = [*asked, f"version {protocol.min_reader_version} of Delta's readers"]
    if asked:
        raise UserError(
            f"the table at {table.table_uri} needs {asked[0]!r}, which is not supported here; "
            "write it anew as a plain Delta table with the tool that made it"
        )


def refuse_outside(table: DeltaTable) -> None:
    """Raises `UserError` where the log names a data file that is not plainly inside the folder of the table.

    A log may be a stranger's: with an absolute path, "..", a scheme or escaped characters in it, files of ours would be
    read, verified and exported as its own. Names that our writers and Delta's give are all that is let through.
    """
    uris = pa.array(table.file_uris(), pa.string())
    root = table.table_uri.removeprefix("file://").rstrip("/") + "/"
    inside = pc.starts_with(uris, root)
    names = pc.utf8_slice_codeunits(uris, len(root))
    columns = table.metadata().partition_columns
    folders = "".join(f"{re.escape(column)}=[A-Za-z0-9_][A-Za-z0-9._-]*/" for column in columns)
    plain = pc.and_(inside, pc.match_substring_regex(names, rf"^{folders}{_FILE}\z"))
    if not pc.all(plain, min_count=0).as_py():
        refuse_path(root, uris.filter(pc.invert(plain))[0].as_py())


def refuse_path(table_uri: str, path: str) -> NoReturn:
    """Raises `UserError` for a path of a log that leads out of its table."""
    raise UserError(
        f"the log of the table at {table_uri.rstrip('/')} names a data file that is not plainly inside it: {path!r}; "
        "nothing of this table is read"
    )


def log_entries(table_uri: str, version: int) -> list[dict[str, Any]]:
    """The actions of one commit, each an object.

    Raises `FileNotFoundError`, `DamagedLog` for an entry that is not whole, and `UserError` for what is no log.
    """
    place = log.place(table_uri, log.entry_name(version))
    data = storage.read(place, log.MOST_ENTRY_BYTES)
    try:
        actions = log.actions(data)
    except ValueError as error:
        raise log.damaged(table_uri, [log.Fault(log.entry_name(version), version, str(error))]) from None
    try:
        for action in actions:
            for path in (action[kind]["path"] for kind in ("add", "remove") if kind in action):
                if not _PLAIN_PATH.fullmatch(path):
                    refuse_path(table_uri, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place} is not an entry of a Delta log: {first_line(error)}") from None
    return actions


def open_or_create(
    table_uri: str, schema: pa.Schema, partition_by: list[str] | None = None, statistics: tuple[str, ...] = ()
) -> DeltaTable:
    """The table, made if there is none, by any number of processes at once."""
    for attempt in range(20):
        try:
            return open_table(table_uri)
        except TableNotFoundError:
            pass
        except (DeltaError, OSError) as error:
            raise UserError(f"the table at {table_uri} cannot be opened: {first_line(error)}") from error
        try:
            storage.server_time(storage.join(table_uri, "_delta_log"))  # says at once if nothing can be written
            create(table_uri, schema, partition_by, statistics)
            log.persist(table_uri, -1, 0)
        except (DeltaError, OSError) as error:
            if attempt == 19 or _FULL.search(str(error)):
                raise UserError(f"no table could be made at {table_uri}: {first_line(error)}") from error
            pause(attempt)
    raise AssertionError("unreachable")


def create(
    table_uri: str,
    schema: pa.Schema,
    partition_by: list[str] | None = None,
    statistics: tuple[str, ...] = (),
    files: Sequence[AddAction] = (),
) -> None:
    """Makes a table where there is none. files: its data files, which may lie there already."""
    create_table_with_add_actions(
        table_uri,
        Schema.from_arrow(schema),
        list(files),
        mode="error",
        partition_by=partition_by,
        configuration=_configuration(statistics),
        name=table_uri.rsplit("/", 1)[1],
        description=_about(SCHEMA_VERSION),
        storage_options=storage.deltalake_options(table_uri) or None,
    )


def _configuration(statistics: tuple[str, ...]) -> dict[str, str | None]:
    kept = {
        "delta.enableExpiredLogCleanup": "false",  # by default checkpoints end versions after a month
        # Each checkpoint names all files that were replaced in this time: after a week, the default, more than it
        # names files that are there. What is replaced is known from the entries.
        "delta.deletedFileRetentionDuration": "interval 2 hours",
    }
    if statistics:
        return {**kept, "delta.dataSkippingStatsColumns": ",".join(statistics)}
    return {**kept, "delta.dataSkippingNumIndexedCols": "0"}


def open_or_create_episodes(corpus_uri: str) -> DeltaTable:
    """The table of episodes, to be written to: made if there is none, and of the present schema version.

    One of an older version gets the columns that were added since, then states the present version, which older
    readers refuse. Its rows stay as they are.
    """
    place = episodes_uri(corpus_uri)
    for attempt in range(MAX_COMMIT_RETRIES):
        table = open_or_create(place, EPISODES, PARTITION_BY, STATISTICS)
        if stated_version(table) == SCHEMA_VERSION:
            return table
        there, before = set(pa.schema(table.schema().to_arrow()).names), table.version()
        missing = pa.schema([EPISODES.field(name) for name in ADDED if name not in there])
        try:
            if len(missing):
                table.alter.add_columns(Schema.from_arrow(missing).fields)
            table.alter.set_table_description(_about(SCHEMA_VERSION))
            log.persist(place, before, table.version())
        except CommitFailedError:  # another has done it, or is doing it
            pause(attempt)
        except (DeltaError, OSError) as error:
            raise UserError(f"the table at {place} cannot be changed: {first_line(error)}") from error
    raise UserError(f"the table at {place} is changed by too many others at once; try again")


def _about(schema_version: int) -> str:
    """A table's description, by which `stated_version` knows its version."""
    return f"selfplay corpus, schema_version={schema_version}"


class Outdated(Exception):
    """Others have added to the series since the caller looked; nothing was added."""


def append(corpus_uri: str, name: str, rows: Iterable[Mapping[str, Any]], known: int | None = None) -> int:
    """Adds rows to the side table `name`, those whose key is not there yet. Returns how many were added.

    Safe to repeat and to do from many processes: each series has one `txn` in the table's log, and of two processes
    that add to it at once one loses the race, looks again and finds what the other has added. So the log grows with the
    number of series, not of rows. The low half of a `txn` is random: it tells who moved it, where an object store loses
    its acknowledgement.
    known: of rows that all belong to one series: how many of it the caller has seen. They are added without a look at
    their keys, or `Outdated` is raised because there are more by now.
    """
    side = SIDE_TABLES[name]
    by_app: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        unknown = set(row) - set(side.schema.names)
        if unknown:
            raise ValueError(f"table {name} has no column {', '.join(sorted(unknown))}")
        by_app.setdefault(" ".join([name, *(str(row.get(column)) for column in side.series)]), []).append(row)
    place = storage.join(storage.normalise(corpus_uri), name)  # delta-rs escapes what is no plain letter of a path
    table = open_or_create(place, side.schema)
    patience, mine, moved, added = Patience(), secrets.randbits(32), dict[str, int](), 0
    for attempt in range(MAX_COMMIT_RETRIES):
        try:
            table.update_incremental()
            last = {app: table.transaction_version(app) for app in by_app}
            if moved and all(last[app] == at for app, at in moved.items()):
                return added  # an attempt whose answer was lost
            if known is not None and any((at or 0) >> 32 > known for at in last.values()):
                raise Outdated
            new = (
                by_app
                if known is not None
                else {app: _new(table, place, side, some, last[app]) for app, some in by_app.items()}
            )
        except (DeltaError, OSError) as error:
            if patience.again(error):
                continue
            raise UserError(f"table {name} of {corpus_uri} cannot be read: {first_line(error)}") from error
        new = {app: some for app, some in new.items() if some}
        if not new:
            log.persist(place, log.last_checkpoint(place), table.version(), data=True)
            return 0
        before = table.version()
        moved = {app: _number(side, some, last[app], known) << 32 | mine for app, some in new.items()}
        properties = CommitProperties(
            app_transactions=[Transaction(app, at, int(time.time() * 1000)) for app, at in moved.items()],
            max_commit_retries=MAX_COMMIT_RETRIES,
        )
        data = pa.Table.from_pylist([dict(row) for some in new.values() for row in some], schema=side.schema)
        added = int(data.num_rows)
        try:
            storage.refuse_full(place, data.nbytes)
            write_deltalake(table, data, mode="append", commit_properties=properties)
            log.persist(place, before, table.version(), data=True)
            return added
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as error:
            if patience.again(error):  # they may have been added: the next look at the log tells
                continue
            if storage.is_remote(corpus_uri) or _SYSTEM.search(str(error)):
                raise UserError(f"table {name} of {corpus_uri} cannot be written: {first_line(error)}") from error
            raise
    raise UserError(f"table {name} of {corpus_uri} is written by too many others at once; try again")


def _new(
    table: DeltaTable, place: str, side: SideTable, rows: list[Mapping[str, Any]], last: int | None
) -> list[Mapping[str, Any]]:
    """Those rows of one series that are not in the table at `place`, each key once. last: the `txn` of the series."""
    by_key = {tuple(row.get(column) for column in side.key): row for row in rows}
    if side.number is not None and last is not None:
        old = [key for key, row in by_key.items() if _whole(row, side.number) <= last >> 32]
    else:
        old = list(by_key)
    if old:
        where = [_equal(column, rows[0].get(column)) for column in side.series]
        if side.number is not None:
            where.append(pc.field(side.number) >= min(_whole(row, side.number) for row in rows))
        found = table.to_pyarrow_dataset(filesystem=storage.arrow_filesystem(place)).to_table(
            columns=list(side.key), filter=reduce(operator.and_, where)
        )
        for row in found.to_pylist():
            by_key.pop(tuple(row[column] for column in side.key), None)
    return list(by_key.values())


def _whole(row: Mapping[str, Any], column: str) -> int:
    return int(row.get(column) or 0)


def _equal(column: str, value: Any) -> pc.Expression:
    return pc.field(column).is_null() if value is None else pc.field(column) == value


def _number(side: SideTable, rows: list[Mapping[str, Any]], last: int | None, known: int | None) -> int:
    """How far a series has come with these rows: the highest number in it, or how many times it was added to."""
    before = (last or 0) >> 32
    if known is not None:
        return known + len(rows)
    return before + 1 if side.number is None else max(before, *(_whole(row, side.number) for row in rows))


def pause(attempt: int) -> None:
    """Waits a random time that grows with the attempts: who collided must not collide again."""
    time.sleep(random.uniform(0.0, min(0.5, 0.005 * 2 ** min(attempt, 8))))


def first_line(error: BaseException) -> str:
    """What is told of an error: its first line, and what the system said, which libraries of Rust put further down."""
    text = str(error).strip() or type(error).__name__
    line, said = text.splitlines()[0], _SYSTEM.search(text)
    return line if said is None or said[0] in line else f"{line}: {said[0]}"
