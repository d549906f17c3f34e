"""What a data file may unpack to. A file of a few kilobytes can claim gigabytes; its footer says so before it is read.

Honest files are far below these limits: columns shrink by a factor of two to twenty, and `write.GROUP_STEPS` bounds a
row group. Texts of one row are checked after decoding, before they become Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from selfplay.errors import Damaged, UserError

#: A row group up to this size (bytes, uncompressed) is never refused; a larger one may not exceed either of the others.
SMALL_GROUP_BYTES = 256 * 2**20
MOST_GROUP_BYTES = 4 * 2**30
MOST_RATIO = 100
#: What the texts of a column may add up to if each is as long as all that is stored of them. Arrow stores a megabyte of
#: different ones in a dictionary, so that an honest column stays below this up to 65,536 values a row group.
MOST_REPEATED_BYTES = 64 * 2**30
#: Bytes of one text or list of numbers in a row.
MOST_CELL_BYTES = 64 * 2**20
MOST_ROWS_A_GROUP = 16 * 2**20
#: Bytes of a side table in memory, and of those that hold long texts or grow with the episodes. As plain values they
#: are some times as many. A table that cannot be larger than the last number is read without a closer look.
MOST_TABLE_BYTES = 256 * 2**20
MOST_BYTES_OF = {"tokenizers": 2**30, "annotations": 4 * 2**30, "uses": 4 * 2**30}
SMALL_TABLE_BYTES = 64 * 2**20
#: A row of a side table counts as so many bytes at least: as plain values, nulls and numbers take no fewer.
LEAST_ROW_BYTES = 256
_MOST_ROWS_AT_ONCE = 1024
#: Bytes of a value in memory, by Parquet's physical type; texts have none.
_WIDTHS = {"BOOLEAN": 1 / 8, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
#: Footers that are read side by side: a bucket answers late.
_AT_ONCE = 32


class Oversized(UserError):
    """A file unpacks to far more than an honest one of its size."""


def refuse_bombs(fragments: Iterable[pads.ParquetFileFragment]) -> None:
    """Raises `Oversized` for the first file of a data set whose footer breaks the limits. Reads footers only.

    The footers stay with the fragments, so that reading the same fragments later does not read them again.
    """
    files = list(fragments)
    with ThreadPoolExecutor(min(_AT_ONCE, len(files) or 1)) as pool:
        for fragment, metadata in zip(files, pool.map(footer, files), strict=True):
            refuse_bomb(fragment.path, metadata)


def refuse_bomb(path: str, metadata: pq.FileMetaData) -> None:
    """Raises `Oversized` where a row group has too many rows or bytes. path: for the sentence."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows > MOST_ROWS_A_GROUP:
            raise Oversized(f"{path} claims {group.num_rows:,} rows in one row group; it is not read")
        for column in range(group.num_columns):
            _refuse_repetition(path, group.column(column))
        if group.total_byte_size <= SMALL_GROUP_BYTES:
            continue
        packed = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
        if group.total_byte_size > min(MOST_GROUP_BYTES, MOST_RATIO * max(packed, 1)):
            raise Oversized(
                f"{path} unpacks from {packed:,} to {group.total_byte_size:,} bytes at once; it is not read"
            )


def _refuse_repetition(path: str, chunk: pq.ColumnChunkMetaData) -> None:
    """Raises `Oversized` where a few stored values stand for very many: equal ones are stored once, with a count.

    Numbers take their width each when they are read. A text may be as long as all that the column stores; where that
    is packed as only repetition is, so many of it are not read.
    """
    stored, packed = chunk.total_uncompressed_size, max(chunk.total_compressed_size, 1)
    width = _WIDTHS.get(chunk.physical_type)
    if width is not None:
        most, allowed = chunk.num_values * width, MOST_GROUP_BYTES
    elif chunk.has_dictionary_page and stored > MOST_RATIO * packed:
        most, allowed = chunk.num_values * stored, MOST_REPEATED_BYTES
    else:
        return
    if most > allowed:
        raise Oversized(
            f"{path} unpacks column {chunk.path_in_schema} from {packed:,} to as much as {most:,.0f} bytes at once; "
            "it is not read"
        )


def refuse_long_cells(path: str, batch: pa.RecordBatch) -> None:
    """Raises `Oversized` where one text in a batch is longer than the limit. path: for the sentence."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.nbytes > MOST_CELL_BYTES and (longest := _longest(column)) > MOST_CELL_BYTES:
            raise Oversized(f"{path} holds a text of {longest:,} bytes in column {name}; it is not read")


def read_whole(what: str, dataset: pads.Dataset, columns: list[str], most: int) -> pa.Table:
    """A data set as one table in memory. what: for the sentence.

    Raises `Oversized` for more than `most` bytes, before there are many more, and `ArrowInvalid` for texts that
    are none.
    """
    fragments = list(dataset.get_fragments())
    with ThreadPoolExecutor(min(_AT_ONCE, len(fragments) or 1)) as pool:
        footers = list(pool.map(footer, fragments))
    if sum(map(_most_bytes, footers)) <= SMALL_TABLE_BYTES:
        table = dataset.to_table(columns=columns)
    else:
        rows = sum(metadata.num_rows for metadata in footers)
        if rows * LEAST_ROW_BYTES > most:
            raise Oversized(f"{what} has {rows:,} rows, more than {most // LEAST_ROW_BYTES:,}; it is not read")
        read, held = list[pa.RecordBatch](), 0
        for fragment, metadata in zip(fragments, footers, strict=True):
            rows = _rows_at_once(metadata)
            # The scanner of a data set unpacks a row group at once, and the reader of a file only so many rows.
            with fragment.open() as stream, pq.ParquetFile(stream, metadata=metadata) as file:
                for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                    held += max(batch.nbytes, LEAST_ROW_BYTES * batch.num_rows)
                    if held > most:
                        raise Oversized(f"{what} unpacks to more than {most:,} bytes; it is not read")
                    read.append(batch)
        schema = pa.schema([dataset.schema.field(name) for name in columns])
        table = pa.Table.from_batches(read, read[0].schema).select(columns).cast(schema) if read else None
        table = schema.empty_table() if table is None else table
    table.validate(full=True)
    for batch in table.to_batches():
        refuse_long_cells(what, batch)
    return table


def read_through(what: str, file: pq.ParquetFile, most: int) -> None:
    """Unpacks a file, a part at a time, and keeps nothing. what: for the sentence.

    Raises `Oversized` for more than `most` bytes, and what Arrow raises for a damaged one.
    """
    refuse_bomb(what, file.metadata)
    unpacked = 0
    for batch in file.iter_batches(_rows_at_once(file.metadata), use_threads=False):
        unpacked += batch.nbytes
        if unpacked > most:
            raise Oversized(f"{what} unpacks to more than {most:,} bytes; it is not read")


def is_small(metadata: pq.FileMetaData) -> bool:
    """Whether a file cannot unpack to more than `SMALL_TABLE_BYTES`, by its footer."""
    return _most_bytes(metadata) <= SMALL_TABLE_BYTES


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Rows of a file that fit in memory even if each text is as long as all that is stored of its column."""
    longest = max((chunk.total_uncompressed_size for chunk in _chunks(metadata)), default=1)
    return max(1, min(_MOST_ROWS_AT_ONCE, SMALL_TABLE_BYTES // max(longest, 1)))


def _chunks(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        yield from (group.column(column) for column in range(group.num_columns))


def _most_bytes(metadata: pq.FileMetaData) -> float:
    """What a file may unpack to, bytes: each text as long as all that is stored of its column."""
    return sum(
        float(chunk.num_values * _WIDTHS.get(chunk.physical_type, max(chunk.total_uncompressed_size, 1)))
        for chunk in _chunks(metadata)
    )


def footer(fragment: pads.ParquetFileFragment) -> pq.FileMetaData:
    """What a data file says of itself. Raises `Damaged` for a local pipe or device, which may never end."""
    files = fragment.filesystem
    local = isinstance(files, pafs.SubTreeFileSystem) and isinstance(files.base_fs, pafs.LocalFileSystem)
    if local and files.get_file_info(fragment.path).type is pafs.FileType.Unknown:
        raise Damaged(fragment.path, "it is a pipe, a device or a socket, and not a regular file")
    return fragment.metadata


def _longest(column: pa.Array) -> int:
    """Bytes of the longest text anywhere in a column."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pc.max(pc.binary_length(column)).as_py() or 0
    if pa.types.is_list(kind):
        return _longest(column.flatten())
    if pa.types.is_struct(kind):
        return max((_longest(part) for part in column.flatten()), default=0)
    return 0
