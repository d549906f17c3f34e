"""What bounds a command that reads strangers' data: memory, what SQL reaches, and where extras come from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selfplay
from selfplay import extras, store
from selfplay.errors import UserError
from selfplay.store.table import limits
from selfplay.store.verify import verify

GOLDEN = Path(selfplay.__file__).parent.parent / "tests/golden/corpus_v1"
#: Runs in a process of its own, as a bound on memory cannot be taken back.
GREEDY = """
import numpy
from selfplay.cli import main, memory
memory.LEAST = 0
memory.available = lambda: 2**29
def greedy():
    numpy.ones(2**28)
main.application = lambda verb: lambda arguments, **options: greedy()
main.sys.argv[1:] = ["corpus"]
main.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts memory that is mapped on Linux alone")
def test_a_command_that_needs_more_memory_than_there_is_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", GREEDY], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this needs more memory than the machine has")


@pytest.mark.parametrize(
    ("column", "refused"),
    [
        (pa.array([[0] * 300_000]), True),
        (pa.array([[0] * 100]), False),
        (pa.array(["x" * 200_000] * 50), True),
        (pa.array([str(number) * 1_000 for number in range(20)]), False),
        (pa.array(["self_play"] * 1000), False),
    ],
)
def test_a_few_stored_values_that_stand_for_very_many(
    column: pa.Array, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal values are stored once: the file is small, and so is what its footer says that it unpacks to."""
    monkeypatch.setattr(limits, "MOST_GROUP_BYTES", 2**20)
    monkeypatch.setattr(limits, "MOST_REPEATED_BYTES", 2**22)
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": column}), file, compression="zstd")
    assert file.stat().st_size < 20_000
    if not refused:
        return limits.refuse_bomb("x", pq.read_metadata(file))
    with pytest.raises(limits.Oversized, match="unpacks column a"):
        limits.refuse_bomb("x", pq.read_metadata(file))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{outside}')",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM read_blob('{outside}')",
        "SELECT * FROM sniff_csv('{outside}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM '{outside}'",
        "SELECT getenv('HOME')",
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "COPY (SELECT 1) TO '{folder}/written.parquet' (FORMAT parquet)",
        "EXPORT DATABASE '{folder}/written'",
        "IMPORT DATABASE '{folder}'",
        "ATTACH '{folder}/written.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET temp_directory = '{folder}/written'",
        "SET allow_unsigned_extensions = true",
        "RESET enable_external_access",
        "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/written.csv'",
    ],
)
def test_sql_reaches_nothing_but_the_corpus(sql: str, confined: Any, tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_text("a\nsecret\n")
    asked = sql.format(outside=tmp_path / "outside.csv", folder=tmp_path)
    with pytest.raises(duckdb.Error):
        confined.execute(asked).fetchall()
    assert [file.name for file in tmp_path.iterdir()] == ["outside.csv"]


@pytest.fixture(scope="module")
def confined() -> duckdb.DuckDBPyConnection:
    return store.open(str(GOLDEN)).to_duckdb()


@pytest.mark.parametrize(
    ("origin", "advice"),
    [
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'selfplay-factory[a,b] @ git+https://example.org/x.git@abc'",
        ),
        ({"url": "ftp://example.org/x.git", "vcs_info": {"vcs": "git"}}, "in a clone of the project"),
        ({"url": "file:///nowhere/at/all", "dir_info": {}}, "in a clone of the project"),
        (["not", "an", "object"], "in a clone of the project"),
        (None, "in a clone of the project"),
    ],
)
def test_an_extra_is_never_installed_by_a_name_that_anybody_may_register(
    origin: Any, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        @staticmethod
        def read_text(name: str) -> str | None:
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed)
    for told in (extras.how_to_install("a", "b"), extras.to_install("selfplay-factory[a,b]")):
        assert told.endswith(advice)
    assert extras.to_install("other>=1") == "pip install 'other>=1'"


@pytest.mark.slow
def test_processes_that_die_end_the_verification(tmp_path: Path) -> None:
    """Another that is started for each would die, too, without end."""
    place = tmp_path / "corpus"
    shutil.copytree(GOLDEN, place)
    corpus = store.open(str(place))
    shutil.rmtree(place)
    with pytest.raises(UserError, match="was killed"):
        list(verify._side_by_side(corpus, [verify._Task("x", 1, None, True)], 1))
