"""Logs of strangers, those of side tables too: files elsewhere, what never ends, and what unpacks without end."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import selfplay
from selfplay import store
from selfplay.cli.main import call
from selfplay.errors import UserError
from selfplay.store.release.verifier import neighbours as strangers
from selfplay.store.release.verifier import table as strangers_table
from selfplay.store.table import limits, log
from selfplay.store.table.table import SIDE_TABLES
from selfplay.store.verify import described
from tests.unit.test_hostile_files import endless

GOLDEN = Path(selfplay.__file__).parents[1] / "tests/golden/corpus_v2"
COMMANDS = {
    "verify": ["corpus", "verify", "--processes", "1"],
    "stats": ["corpus", "stats"],
    "query": ["corpus", "query", "SELECT count(*) FROM runs"],
    "show": ["corpus", "show", "latest"],
    "repair": ["repair"],
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "corpus"))


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A reader that waits for a pipe fails instead of waiting for ever."""
    signal.setitimer(signal.ITIMER_REAL, 120.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def commands_end_in_a_sentence(corpus: Path, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """All of them, and none says anything else; those that do not need the table are free to do their work."""
    for name, words in COMMANDS.items():
        code = call([*words, str(corpus)])
        told = capfd.readouterr()
        assert "traceback" not in told.err, (name, told.err)
        if name in ("verify", "query"):
            assert code == 2 and said in told.err and told.err.count("error:") == 1, (name, code, told)
        assert code == 0 or said in told.err + told.out, (name, code, told)


@pytest.mark.parametrize(
    ("where", "kind"),
    [("an entry", "pipe"), ("a checkpoint", "device"), ("a hint", "pipe"), ("data", "pipe"), ("data", "device")],
)
def test_what_never_ends_in_a_side_table(
    corpus: Path, where: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = corpus / "runs" / log.FOLDER
    names = {"an entry": log.entry_name(0), "a checkpoint": log.checkpoint_name(0), "a hint": log.HINT}
    endless(next((corpus / "runs").glob("*.parquet")) if where == "data" else folder / names[where], kind)
    commands_end_in_a_sentence(corpus, "not a regular file", capfd)
    with pytest.raises(ValueError, match="is not a regular file"):
        strangers_table.side_table(str(corpus), "runs")


@pytest.mark.parametrize("path", ["/etc/passwd.parquet", "../episodes/x.parquet"])
def test_a_log_of_a_side_table_that_names_files_elsewhere(
    corpus: Path, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for entry in (corpus / "runs" / log.FOLDER).glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                action["add"]["path"] = path
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    commands_end_in_a_sentence(corpus, "not plainly inside it", capfd)
    with pytest.raises(ValueError, match="not plainly inside"):
        strangers_table.side_table(str(corpus), "runs")


def test_a_checkpoint_that_unpacks_without_end_is_not_opened(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One text of 100 kB, stored once, in every of 2000 rows: 200 MB out of a few hundred bytes."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["a" * 100_000]))
    bomb = corpus / "runs" / log.FOLDER / log.checkpoint_name(0)
    pq.write_table(pa.table({"add": pa.StructArray.from_arrays([text.cast(pa.string())], ["path"])}), bomb)
    assert bomb.stat().st_size < 50_000
    for module, name in ((log, "MOST_CHECKPOINT_BYTES"), (strangers_table, "MOST_UNPACKED_BYTES")):
        monkeypatch.setattr(module, name, 2**26)
    commands_end_in_a_sentence(corpus, "unpacks to more than 67,108,864 bytes; it is not read", capfd)
    with pytest.raises(ValueError, match="unpacks to more than 67,108,864 bytes"):
        strangers_table.side_table(str(corpus), "runs")


def runs(count: int, **given: Any) -> pa.Table:
    """As many runs, each with a configuration that is not its own."""
    plain = {"config": "{}", "config_digest": "x", "epoch": 1, **given}
    rows = [plain | {"run_id": f"r{i}"} for i in range(count)]
    return pa.Table.from_pylist(rows, SIDE_TABLES["runs"].schema)


def test_a_side_table_of_too_many_rows_is_not_read(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nulls take no room in a file, and each row does as a plain value."""
    write_deltalake(str(corpus / "runs"), runs(5000, config=None, config_digest=None), mode="overwrite")
    for module in (limits, strangers_table):
        monkeypatch.setattr(module, "MOST_TABLE_BYTES", 2**20)
    monkeypatch.setattr(limits, "SMALL_TABLE_BYTES", 2**10)
    with pytest.raises(UserError, match="table runs of .* has 5,000 rows, more than 4,096; it is not read"):
        store.open(str(corpus)).table("runs")
    with pytest.raises(ValueError, match="the table runs is larger than it can be"):
        strangers_table.side_table(str(corpus), "runs")


def test_of_very_many_runs_that_are_false_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (described, strangers):
        monkeypatch.setattr(module, "MOST_TOLD", 3)
    rows = runs(10).to_pylist()
    lies = list(described.Described(rows, [], []).lies())
    assert [lie.subject for lie in lies] == ["run r0, epoch 1", "run r1, epoch 1", "run r2, epoch 1", "table runs"]
    assert lies[-1].reason.startswith("7 more of its rows are false")
    tables = {name: list[Any]() for name in ("policies", "environments", "deletions")} | {"runs": rows}
    assert [subject for subject, _ in strangers.Neighbours().lies(tables, {})] == [lie.subject for lie in lies]
