"""The table at the released version, and its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from selfplay.store.release.verifier.rows import (
    BATCH_ROWS,
    LEAST_ROW_BYTES,
    MOST_CHECKPOINT_BYTES,
    MOST_ENTRY_BYTES,
    MOST_FILE_BYTES,
    MOST_GROUP_BYTES,
    MOST_RATIO,
    MOST_TABLE_BYTES,
    MOST_TOKENIZERS_BYTES,
    MOST_UNPACKED_BYTES,
    PLAIN_PATH,
    RELEASE_NAME,
    RELIED_ON,
    SMALL_GROUP_BYTES,
    TABLE_NAME,
    Lie,
    Row,
)


def options() -> dict[str, str]:
    plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return {"AWS_ALLOW_HTTP": "true"} if plain else {}


def opened(place: str, version: int | None = None) -> DeltaTable:
    """A table. Raises `ValueError` where a local file of its log is none, is larger than any, or unpacks to be."""
    log = f"{place}/_delta_log"
    for name in os.listdir(log) if "://" not in place and os.path.isdir(log) else ():
        path, most = f"{log}/{name}", MOST_ENTRY_BYTES if name.endswith(".json") else MOST_CHECKPOINT_BYTES
        if os.path.isdir(path) or not os.path.exists(path):
            continue
        if regular(path) > most:
            raise ValueError(f"{path} has more than {most:,} bytes")
        if name.endswith(".parquet"):
            refuse_bomb(path)
    return DeltaTable(place, version=version, storage_options=options())


def refuse_bomb(path: str) -> None:
    """A checkpoint is unpacked a part at a time. Raises `ValueError` for one that unpacks to more than any."""
    unpacked = 0
    with contextlib.suppress(pa.ArrowException, OSError):  # a damaged one, which the table may do without
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(rows_at_once(file), use_threads=False):
            unpacked += batch.nbytes
            if unpacked > MOST_UNPACKED_BYTES:
                raise ValueError(f"{path} unpacks to more than {MOST_UNPACKED_BYTES:,} bytes")


def regular(path: str) -> int:
    """Bytes of a local file. Raises `ValueError` for a pipe, a device or a socket, which may never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    return status.st_size


def refuse_outside(table: DeltaTable) -> None:
    """A log that names files outside its table (an absolute path, "..", a scheme) would have others' files verified."""
    for path in pa.table(table.get_add_actions()).column("path").to_pylist():
        if not PLAIN_PATH.fullmatch(path):
            raise ValueError(f"the log names a data file that is not plainly inside the table: {path!r}")


def located(place: str) -> str:
    return place.rstrip("/") if "://" in place else os.path.abspath(os.path.expanduser(place))


def read(folder: str, path: str, most: int) -> bytes:
    """The bytes of a file below a folder, local or s3://. Raises `OSError`, and `ValueError` for more than `most`."""
    if "://" not in folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder}")
    if "://" not in folder:
        regular(os.path.join(folder, path))
    place = pafs.PyFileSystem(DeltaStorageHandler(folder, options()))
    with place.open_input_stream(path) as stream:
        data = bytes(stream.read(most + 1))
    if len(data) > most:
        raise ValueError(f"{path} has more than {most:,} bytes")
    return data


def certificate_of(data: bytes) -> Row:
    """The certificate, whose fields are what this file relies on. Raises `ValueError`."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("the certificate is nested too deeply") from None
    kinds = {"table_version": int, "episodes": int, "release": str, "content_digest": str, "packages": dict,
             "rulesets": list, "files": list}  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(found, dict) or type(found.get(name)) is not kind:
            raise ValueError(f"the certificate has no field {name} that is {kind.__name__}")
    texts = {"rulesets": ("env_id", "ruleset_digest"), "files": ("path", "sha256")}
    for name, needed in texts.items():
        for one in found[name]:
            if not isinstance(one, dict) or not all(isinstance(one.get(field), str) for field in needed):
                raise ValueError(f"an entry of the certificate's {name} lacks {' or '.join(needed)}")
    if found["table_version"] < 0:
        raise ValueError("the certificate's table_version is below 0")
    if not RELEASE_NAME.fullmatch(found["release"]):
        raise ValueError("the certificate's release is no name of one")
    files, tables = found.setdefault("release_files", {}), found.setdefault("tables", {})
    if not all(isinstance(of, dict) for of in (files, tables)) or not all(map(TABLE_NAME.fullmatch, tables)):
        raise ValueError("the certificate's release_files and tables are not objects by name")
    listed = (digest for of in tables.values() for digest in (of if isinstance(of, list) else [None]))
    if not all(isinstance(digest, str) for digest in (*files.values(), *listed)):
        raise ValueError("the certificate's release_files and tables hold what is no digest")
    if not all(isinstance(found.get(name), str | None) for name in ("merkle_root", "key")):
        raise ValueError("the certificate's merkle_root or key is no text")
    return dict(found)


def shown(value: object) -> str:
    """A stranger's value as one line in which a terminal finds nothing to obey; at most 1000 characters."""
    text = " ".join(str(value)[:1000].split())
    return "".join(one if one.isprintable() else "?" for one in text).encode("utf-8", "replace").decode()


def file_lies(data: bytes, path: str, certified: Row | None) -> None:
    sha256, named = hashlib.sha256(data).hexdigest(), re.search(r"([0-9a-f]{64})\.parquet\Z", path)
    if certified is None:
        raise Lie("the certificate does not list this file")
    if certified["sha256"] != sha256:
        raise Lie("the file was changed: its sha256 is not the certified one")
    if named and named.group(1) != sha256:
        raise Lie("the file was changed after it was written: its sha256 is not its name")


def rows_of(data: bytes, partition: Row, schema: pa.Schema, chosen: set[int] | None) -> Iterator[Row]:
    """The rows of a Parquet file, all or those with the `chosen` indices; two columns are in its path, not in it."""
    before = 0
    file = parquet(data)
    for batch in file.iter_batches(rows_at_once(file), use_threads=False):
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns |= {name: pa.array([value] * batch.num_rows, pa.string()) for name, value in partition.items()}
        columns["started_at"] = columns["started_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        kinds = [pa.int64() if name == "started_at" else schema.field(name).type for name in columns]
        arrays = [columns[name].cast(kind) for name, kind in zip(columns, kinds, strict=True)]
        inside = [i for i in range(batch.num_rows) if chosen is None or before + i in chosen]
        yield from pa.Table.from_arrays(arrays, list(columns)).take(pa.array(inside, pa.int64())).to_pylist()
        before += batch.num_rows


def parquet(data: bytes) -> pq.ParquetFile:
    """A Parquet file. Raises `ValueError` for one that unpacks to far more than an honest one."""
    file = pq.ParquetFile(pa.BufferReader(data))
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).total_byte_size
        if size > SMALL_GROUP_BYTES and size > min(MOST_GROUP_BYTES, MOST_RATIO * len(data)):
            raise ValueError(f"{len(data):,} bytes of it unpack to {size:,} at once")
    return file


def rows_at_once(file: pq.ParquetFile) -> int:
    """Rows of a file that fit in memory even if each text in them is as long as all that is stored of its column.

    Equal texts are stored once: a column that is packed as only repetition is may hold one of megabytes in every row.
    """
    longest = 1
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.total_uncompressed_size > MOST_RATIO * max(chunk.total_compressed_size, 1):
                longest = max(longest, chunk.total_uncompressed_size)
    return max(1, min(BATCH_ROWS, SMALL_GROUP_BYTES // longest))


def side_table(corpus: str, name: str) -> list[Row]:
    """The rows of a side table as it is now, [] where there is none. Raises `ValueError` for what is no such table."""
    try:
        table = opened(f"{corpus}/{name}")
    except TableNotFoundError:
        return []
    refuse_outside(table)
    there = {field.name: str(field.type) for field in pa.schema(table.schema().to_arrow())}
    for column, kind in RELIED_ON.get(name, {}).items():
        if not there.get(column, "").startswith(kind):
            raise ValueError(f"the table {name} has no column {column} that is {kind}")
    rows: list[Row] = []
    held = 0
    for path in pa.table(table.get_add_actions()).column("path").to_pylist():
        file = parquet(read(f"{corpus}/{name}", path, MOST_FILE_BYTES))
        for batch in file.iter_batches(rows_at_once(file), use_threads=False):
            held += max(batch.nbytes, LEAST_ROW_BYTES * batch.num_rows)
            if held > (MOST_TOKENIZERS_BYTES if name == "tokenizers" else MOST_TABLE_BYTES):
                raise ValueError(f"the table {name} is larger than it can be")
            rows += batch.to_pylist()
    return rows
