"""Side tables that somebody else wrote: other columns, other types, too much of everything, and times without end."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import selfplay
from selfplay import store
from selfplay.cli.main import call
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.corpus import lineage
from selfplay.store.release.verifier import chain as strangers_chain
from selfplay.store.release.verifier import neighbours as strangers
from selfplay.store.release.verifier import one_file
from selfplay.store.release.verifier.table import side_table
from selfplay.store.table import chain, limits
from selfplay.store.table.table import SIDE_TABLES, first_line
from selfplay.store.verify.neighbours import Deleted

GOLDEN = Path(selfplay.__file__).parents[1] / "tests/golden/corpus_v2"
CHECKED = ("closings", "deletions", "environments", "policies", "runs", "tokenizers")


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return str(shutil.copytree(GOLDEN, tmp_path / "corpus"))


def put(corpus: str, name: str, rows: pa.Table) -> None:
    shutil.rmtree(f"{corpus}/{name}", ignore_errors=True)
    write_deltalake(f"{corpus}/{name}", rows)


def row(name: str, **given: Any) -> dict[str, Any]:
    """A row of a side table with something in each column."""
    found: dict[str, Any] = {}
    for field in SIDE_TABLES[name].schema:
        kind = field.type
        number = [] if pa.types.is_list(kind) else 1
        found[field.name] = "x" if pa.types.is_string(kind) else datetime.now(UTC) if kind == TIME else number
    return found | given


TIME = pa.timestamp("us", "UTC")


@pytest.mark.parametrize("name", CHECKED)
def test_a_side_table_with_other_columns_is_named(
    corpus: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = SIDE_TABLES[name].schema
    kinds = {True: [{"a": 1}], False: ["text"]}
    others = {field.name: kinds[pa.types.is_string(field.type)] for field in schema}
    for wrong in (pa.table({"x": [1]}), pa.table(others)):
        put(corpus, name, wrong)
        with pytest.raises(UserError, match=f"is not one of {name}: "):
            store.open(corpus).table(name)
        assert call(["corpus", "verify", corpus]) == 2
        said = capfd.readouterr().err
        assert f"is not one of {name}: " in said and "traceback" not in said
        with pytest.raises(ValueError, match=f"the table {name} has no column "):
            side_table(corpus, name)


def test_nothing_is_skipped_because_a_side_table_is_gone(corpus: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the table of policies no span is held against it: that is not to pass for a corpus that has none."""
    next(Path(corpus, "policies").glob("*.parquet")).unlink()
    assert call(["corpus", "verify", corpus]) == 2
    assert "table policies of" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["policies", "closings", "runs"])
def test_a_time_that_no_date_can_be_ends_nothing(corpus: str, name: str) -> None:
    table = pa.Table.from_pylist([row(name)], SIDE_TABLES[name].schema)
    for at, field in enumerate(table.schema):
        if field.type == TIME:
            table = table.set_column(at, field, pa.array([2**63 - 1], pa.int64()).cast(TIME))
    put(corpus, name, table)
    times = [field.name for field in table.schema if field.type == TIME]
    (found,) = store.open(corpus).rows(name)
    assert all(found[time] is None for time in times)
    assert all(None not in (found[column],) for column in found if column not in times)


def test_a_side_table_larger_than_any_is_not_read(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text is stored once, and is there as often as its row group has rows: 4 MB here, of a few hundred bytes."""
    rows = pa.Table.from_pylist([row("runs", config="a" * 4000, epoch=i) for i in range(1000)])
    put(corpus, "runs", rows.cast(SIDE_TABLES["runs"].schema))
    monkeypatch.setattr(limits, "SMALL_TABLE_BYTES", 2**20)
    found = store.open(corpus).table("runs", ["epoch", "config"])  # read in parts, and the same
    assert found.num_rows == 1000 and found.schema.names == ["epoch", "config"]
    assert sorted(found["epoch"].to_pylist()) == list(range(1000)) and set(found["config"].to_pylist()) == {"a" * 4000}
    monkeypatch.setattr(limits, "MOST_TABLE_BYTES", 2**20)
    with pytest.raises(UserError, match="table runs of .* unpacks to more than 1,048,576 bytes; it is not read"):
        store.open(corpus).table("runs")


def test_texts_that_are_none_are_refused(corpus: str) -> None:
    table = pa.Table.from_pylist([row("runs")], SIDE_TABLES["runs"].schema)
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    put(corpus, "runs", table)
    file = next(Path(corpus, "runs").glob("*.parquet"))
    pq.write_table(table.set_column(table.schema.names.index("host"), "host", broken), file)
    with pytest.raises(UserError, match="table runs of .* cannot be read"):
        store.open(corpus).table("runs")


def test_texts_of_episodes_that_are_none_are_false(corpus: str, capfd: pytest.CaptureFixture[str]) -> None:
    games = [file["path"] for file in store.open(corpus).files() if file["partition.kind"] == "game"]
    file = Path(corpus, "episodes", games[0])
    rows = pq.read_table(file, partitioning=None)
    for name in ("env_id", "slot", "episode_id"):
        lengths = np.arange(rows.num_rows + 1, dtype=np.int32)
        letters = pa.py_buffer(b"\xff" * rows.num_rows)
        broken = pa.StringArray.from_buffers(rows.num_rows, pa.py_buffer(lengths), letters)
        pq.write_table(rows.set_column(rows.schema.names.index(name), rows.schema.field(name), broken), file)
        for words in (["verify", corpus], ["show", "latest", corpus], ["stats", corpus]):
            code = call(["corpus", *words])
            said = capfd.readouterr()
            assert code in (0, 1, 2) and "traceback" not in said.err, (name, words, said.err)
            assert words[0] != "verify" or code == 1, (name, said)


def test_weights_without_digest_and_parents_in_a_circle_are_no_trouble(corpus: str) -> None:
    """A chain of 20,000 parents is followed in one pass."""
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    rows = [
        row("policies", policy_id="p", version=i, digest=digest, parent_digest=digests[i - 1], run_id="r", uri=None)
        for i, digest in enumerate(digests)
    ]
    rows.append(row("policies", digest=None))
    put(corpus, "policies", pa.Table.from_pylist(rows, SIDE_TABLES["policies"].schema))
    assert len(lineage.of_weights(store.open(corpus), digests[5]).parents) == 19_999


def test_a_thousand_lies_are_printed_and_the_others_counted(corpus: str, capfd: pytest.CaptureFixture[str]) -> None:
    writers = [{"slot": f"s{i}", "epoch": 1000, "episodes": 1, "aborted": 0, "head": "x"} for i in range(1100)]
    ended = row("closings", run_id="golden", epoch=7, episodes=1100, table_version=0, writers=writers)
    put(corpus, "closings", pa.Table.from_pylist([ended], SIDE_TABLES["closings"].schema))
    assert call(["corpus", "verify", corpus]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("false run golden: slot s") for line in lines) == 1000
    # Besides the 1,100 that are not there, a writer that is there, and that the closing does not name.
    assert "and 101 more are false; --json names them all" in lines


@pytest.mark.parametrize(
    "sampler",
    [None, "{", "[" * 10**5, "[]", '{"seed": 1, "batch": 1e99, "shards": 1000000000, "window": {}}'],
    ids=["none", "torn", "nested", "list", "giant"],
)
def test_uses_that_no_learner_writes_are_one_sentence(corpus: str, sampler: str | None) -> None:
    pytest.importorskip("torch")
    from trainers.alphazero.provenance import samples_of

    rows = [row("uses", run_id="r", version_out=1, sampler=sampler), row("uses", run_id="r", version_out=None)]
    put(corpus, "uses", pa.Table.from_pylist(rows, SIDE_TABLES["uses"].schema))
    with pytest.raises(UserError, match="says of version 1 of r what no learner does: "):
        samples_of(store.open(corpus), "r", 1)


def test_many_deletions_are_looked_through_once() -> None:
    """As many spans as numbers, in any order, and each way of asking for them: a pass, and not one a number."""
    many = 30_000
    spans = [chain.Span(("r", "p", 1), i, i, None, f"{i:x}", True) for i in range(many)]
    end = {"episodes": many, "head": f"{many - 1:x}"}
    assert not list(chain._of_writer(("r", "p", 1), (), spans[::-1], end, {"r": 0}))
    assert [lie.reason for lie in chain._of_writer(("r", "p", 1), (), spans[:-1], end, {"r": 0})]
    gone = [{"slot": "p", "epoch": 1, "first": i, "last": i, "head": f"{i:x}"} for i in range(many)][::-1]
    writers = [{"slot": "p", "epoch": 1, **end}]
    ended = {"run_id": "r", "epoch": 1, "table_version": 1, "episodes": many, "writers": writers, "how": "finished"}
    deleted = {"run_id": "r", "table_version": 1, "episodes": many, "writers": gone}
    assert not list(strangers_chain.Chains().lies({"closings": [ended], "deletions": [deleted], "runs": []}, 1))
    deleted["writers"] = gone[1:]
    assert list(strangers_chain.Chains().lies({"closings": [ended], "deletions": [deleted], "runs": []}, 1))


@pytest.mark.parametrize(
    ("spans", "gaps"),
    [
        ([(3, 10)], [(3, 4, True), (6, 10, True), (11, 11, False)]),
        ([(3, 4), (3, 10)], [(3, 4, True), (6, 10, True)]),
        ([(9, 3), (4, 4)], [(3, 4, False), (4, 4, True)]),
        ([(0, 1), (2, 5), (4, 8)], [(0, 8, True), (9, 9, False)]),
        ([(-(2**63), 2**63 - 1)], [(0, 5, True), (7, 2**62, True)]),
        ([], [(0, 0, False), (5, 4, True)]),
    ],
)
def test_what_was_taken_out_covers_gaps(spans: list[tuple[int, int]], gaps: list[tuple[int, int, bool]]) -> None:
    deleted, left = Deleted({"w": spans}), sorted(spans, reverse=True)
    for first, last, covered in gaps:
        assert deleted.holds("w", first, last) == covered
        assert strangers.covered(first, last, left) == covered


def test_a_full_disk_is_told_before_a_row_is_written(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta's writer would panic on it, and its error says in its second line, in colours, what happened."""
    before = store.open(corpus).table("runs").num_rows
    monkeypatch.setattr(storage, "_LEAST_FREE", 2**60)
    with pytest.raises(UserError, match="the disk is full: nothing more can be written to .*/runs; make room"):
        store.append(corpus, "runs", [{"run_id": "z", "epoch": 1}])
    monkeypatch.undo()
    assert store.open(corpus).table("runs").num_rows == before
    assert store.append(corpus, "runs", [{"run_id": "z", "epoch": 1}]) == 1
    said = first_line(OSError("Generic error\n  \x1b[31m↳\x1b[0m No space left on device (os error 28)\n at x"))
    assert said == "Generic error: No space left on device (os error 28)"


_BUSY = """
import sys, threading, time, pyarrow as pa
class Slow:
    closed = False
    def read(self, n=-1):
        while True: time.sleep(0.01)
    def readable(self): return True
    def close(self): pass
    def seekable(self): return False
file = pa.PythonFile(Slow(), "r")
threading.Thread(target=lambda: file.read(1), daemon=True).start()
"""


@pytest.mark.parametrize("which", ["verify_corpus.py", "selfplay"])
def test_threads_that_are_still_at_work_do_not_change_the_exit_code(which: str, tmp_path: Path) -> None:
    """They let go of what is Python's when they are done; taking the interpreter down meanwhile ended in SIGABRT."""
    place = tmp_path / "verify_corpus.py"
    if which == "selfplay":
        place.write_text("from selfplay.cli.main import main\nmain()\n")
    else:
        place.write_text(one_file())
    words = ["corpus", "verify", str(tmp_path)] if which == "selfplay" else [str(tmp_path)]
    start = f"{_BUSY}\nimport runpy; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    begun = [sys.executable, "-c", start, str(place), *words]
    ended = subprocess.run(begun, capture_output=True, text=True, timeout=100, check=False, cwd=os.getcwd())
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
