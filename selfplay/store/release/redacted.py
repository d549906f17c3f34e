"""Making a redacted release: a copy of one version of a corpus, elsewhere, that tells nothing of machines and places.

The copy is made and verified in a folder beside its place, whose name says that it is incomplete, and gets its name at
the end; into a bucket it is uploaded then, the log of its episodes last. So it is there whole or not at all. What it
leaves out: `selfplay.store.release.redaction`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from selfplay import signing
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.corpus.corpus import Corpus, open
from selfplay.store.release import redaction
from selfplay.store.release.carried import Source
from selfplay.store.release.certificate import facts
from selfplay.store.release.job import Released, described, released, verified
from selfplay.store.release.redaction import Heads, Secrets
from selfplay.store.table.snapshot import readable
from selfplay.store.table.table import EPISODES_TABLE, SIDE_TABLES, STATISTICS, check_name, create, log_entries
from selfplay.store.table.write import write_file
from selfplay.store.verify.prompts import Renders

#: Bytes of original files that become one file of the copy.
_FILE_BYTES = 64 * 2**20
_LOG = "_delta_log"
_FIRST = "00000000000000000000.json"


def release_redacted(
    corpus: Corpus,
    name: str,
    place: str,
    note: str = "",
    sample: int | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[], None] = lambda: None,
    key: Callable[[], signing.Key] | None = None,
    renders: Renders | None = None,
    weights: Source | None = None,
) -> Released:
    """Releases a copy of this version of the corpus at `place`, without host names, paths, addresses, configuration.

    place: URI of a folder that is empty or not there. The other arguments: as of `release`. Raises `UserError`, with
    nothing there, where anything is false, and where what is to be left out stands in data or in a name.
    """
    check_name("release", name)
    place = refuse_full(place)
    if not corpus.count():
        raise UserError(f"nothing was released: version {corpus.version} of {corpus.uri} holds no episode")
    with _incomplete(place) as folder:
        known = redaction.secrets_of(corpus)
        heads = _copy_episodes(corpus, folder, known)
        _copy_side_tables(corpus, folder, known, heads)
        copy = open(folder)
        checked = verified(copy, sample, seed, processes, progress, renders)
        reasons = Counter[str]()
        for reason, count in checked.reasons.items():
            reasons[known.scrubbed(reason)] += count
        found = facts(copy, name, note, replace(checked, reasons=dict(reasons)), redacted=True)
        row = described(copy, found, storage.now(), None if key is None else key(), weights)
        _write_side_table(folder, "releases", pa.Table.from_pylist([row], SIDE_TABLES["releases"].schema), known)
        storage.fault("before_release")
        _publish(folder, place)
    (done,) = released(open(place))
    return done


def refuse_full(place: str) -> str:
    """The place, normalised. Raises `UserError` where there is anything: a release writes over nothing."""
    place = storage.normalise(place)
    there = next(storage.entries(place), None)
    if there is not None or (not storage.is_remote(place) and os.path.lexists(place) and not _is_empty(place)):
        raise UserError(f"there is something at {place} already; a release is written to a new or empty folder")
    return place


def _is_empty(place: str) -> bool:
    return os.path.isdir(place) and not os.path.islink(place) and not os.listdir(place)


@contextlib.contextmanager
def _incomplete(place: str) -> Iterator[str]:
    """A folder in which the copy is made; gone at the end, whether it was published or not."""
    if storage.is_remote(place):
        storage.server_time(place)  # says at once if nothing can be written there
        folder = tempfile.mkdtemp(prefix="selfplay-release-")
    else:
        storage.server_time(os.path.dirname(place))
        folder = f"{place}.incomplete-{secrets.token_hex(4)}"
        os.mkdir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_episodes(corpus: Corpus, folder: str, known: Secrets) -> Heads:
    """All episodes, run by run and writer by writer, in files of about `_FILE_BYTES`; the ends of their chains."""
    heads = Heads()
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in sorted(corpus.files(), key=lambda file: str(file["path"])):
        parts.setdefault((file["partition.kind"], file["partition.run_id"]), []).append(file)
    adds = []
    with readable(corpus.uri):
        corpus.refuse_bombs()
        for (kind, run_id), files in sorted(parts.items()):
            size, count = (sum(file[name] for file in files) for name in ("size_bytes", "num_records"))
            most = max(1, count * _FILE_BYTES // max(1, size))
            for some in _groups(corpus.ordered(f"kind = '{kind}' AND run_id = '{run_id}'"), most):
                rows = redaction.episodes(some, known, heads)
                redaction.refuse_leaks("episodes", rows, known)
                (batch,) = rows.combine_chunks().to_batches()
                written = write_file(folder, batch)
                values: dict[str, str | None] = {"kind": kind, "run_id": run_id}
                adds.append(AddAction(written.path, written.size, values, _now(), True, written.stats))
    _create(storage.join(folder, EPISODES_TABLE), EPISODES, adds, PARTITION_BY, STATISTICS)
    return heads


def _groups(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[pa.Table]:
    """The same rows, about `most` at a time."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= most:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _copy_side_tables(corpus: Corpus, folder: str, known: Secrets, heads: Heads) -> None:
    """The rows that speak of what this version holds."""
    names = ["episode_id", "run_id", "env_id", "ruleset_digest"]
    held = corpus.to_arrow(columns=names)
    of = {name: "run_id" for name in redaction.SIDE}
    of |= {"environments": "ruleset_digest", "annotations": "episode_id"}
    for name in redaction.SIDE:
        rows = corpus.table(name).cast(SIDE_TABLES[name].schema)
        if name == "tokenizers":
            rows = _tellable_tokenizers(corpus, rows, known)
        else:
            rows = rows.filter(pc.is_in(rows.column(of[name]), held.column(of[name]).combine_chunks()))
        if name in ("closings", "deletions"):  # in the copy each version is 0: what is of a later one is left out
            version = pc.field("table_version")
            later = version > corpus.version if name == "closings" else version >= corpus.version
            rows = rows.filter(version.is_null() | ~later)
        if rows.num_rows:
            _write_side_table(folder, name, redaction.side_table(name, rows.combine_chunks(), known, heads), known)


def _tellable_tokenizers(corpus: Corpus, rows: pa.Table, known: Secrets) -> pa.Table:
    """Those that episodes name, but for any whose files tell of a machine or a place."""
    used = corpus.dataset.to_table(columns={"digest": pc.field("reasoning", "tokenizer")}).column("digest")
    rows = rows.filter(pc.is_in(rows.column("digest"), pc.unique(used)))
    silent = [known.found_in(files, data=True) is None for files in rows.column("files").to_pylist()]
    return rows.filter(pa.array(silent, pa.bool_()))


def _write_side_table(folder: str, name: str, rows: pa.Table, known: Secrets) -> None:
    redaction.refuse_leaks(name, rows, known)
    sink = pa.BufferOutputStream()
    pq.write_table(rows.sort_by([(column, "ascending") for column in SIDE_TABLES[name].key]), sink, compression="zstd")
    data = memoryview(sink.getvalue())
    path = f"{hashlib.sha256(data).hexdigest()}.parquet"
    storage.create(storage.join(folder, name, path), data, durable=True)
    stats = json.dumps({"numRecords": rows.num_rows})
    _create(storage.join(folder, name), SIDE_TABLES[name].schema, [AddAction(path, len(data), {}, _now(), True, stats)])


def _create(
    table: str,
    schema: pa.Schema,
    adds: list[AddAction],
    partition_by: list[str] | None = None,
    statistics: tuple[str, ...] = (),
) -> None:
    """A table of one version, whose log does not say where it was made."""
    create(table, schema, partition_by, statistics, adds)
    actions = log_entries(table, 0)
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["operationParameters"] = {}
    text = "".join(f"{json.dumps(action)}\n" for action in actions)
    storage.write(storage.join(table, _LOG, _FIRST), text.encode(), durable=True)


def _now() -> int:
    return int(time.time() * 1000)


def _publish(folder: str, place: str) -> None:
    """Gives the finished copy its place."""
    if not storage.is_remote(place):
        try:
            os.rename(folder, place)  # over an empty folder, and nothing else
        except OSError as error:
            raise UserError(f"nothing was released: {place} was written to meanwhile ({error.strerror})") from error
        storage.sync([place])
        return
    refuse_full(place)
    last = Path(folder, EPISODES_TABLE, _LOG, _FIRST)
    for file in sorted(path for path in Path(folder).rglob("*") if path.is_file() and path != last):
        storage.upload(file, storage.join(place, file.relative_to(folder).as_posix()))
    if not storage.create(storage.join(place, last.relative_to(folder).as_posix()), last.read_bytes()):
        raise UserError(f"another process has released to {place} at the same time; delete that folder and try again")
