"""A log that asks its readers for what the readers here do not do is refused in a sentence, before any row is read."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import selfplay
from selfplay import store
from selfplay.cli.main import call
from selfplay.errors import UserError
from selfplay.store.verify.verify import verify_corpus

GOLDEN = Path(selfplay.__file__).parents[1] / "tests/golden/corpus_v1"


def counting(place: Path, records: int) -> str:
    """A copy of a small corpus whose log says this many episodes of every file."""
    corpus = Path(shutil.copytree(GOLDEN, place))
    for entry in (corpus / "episodes/_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                stats = json.loads(action["add"]["stats"]) | {"numRecords": records}
                action["add"]["stats"] = json.dumps(stats)
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    return str(corpus)


@pytest.mark.parametrize("records", [0, 1, 4097])
def test_verify_does_not_believe_the_log_how_many_episodes_a_file_holds(records: int, tmp_path: Path) -> None:
    checks = list(verify_corpus(store.open(counting(tmp_path / "corpus", records))))
    assert any(check.state == "false" and f"and the log says {records:,}" in check.reason for check in checks)


def test_a_file_of_fewer_than_no_episodes_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Verification would have nothing to do, and call that true."""
    assert call(["corpus", "verify", counting(tmp_path / "corpus", -7)]) == 2
    assert "does not say how many episodes" in capfd.readouterr().err


def number_fields(kind: Any, numbers: Iterator[int]) -> None:
    """Gives every field of a schema, at any depth, its own column's name; two of them each other's."""
    if isinstance(kind, dict):
        for field in kind.get("fields", ()):
            physical = {"licence": "env_id", "env_id": "licence"}.get(field["name"], field["name"])
            field["metadata"] = {
                "delta.columnMapping.id": next(numbers),
                "delta.columnMapping.physicalName": physical,
            }
            number_fields(field["type"], numbers)
        number_fields(kind.get("elementType"), numbers)


def asking(place: Path, protocol: dict[str, Any], configuration: dict[str, str]) -> str:
    """A copy of a small corpus whose log states this."""
    corpus = Path(shutil.copytree(GOLDEN, place))
    entry = corpus / "episodes/_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = protocol
        if "metaData" in action:
            action["metaData"]["configuration"] |= configuration
            if configuration:
                schema = json.loads(action["metaData"]["schemaString"])
                number_fields(schema, itertools.count(1))
                action["metaData"]["schemaString"] = json.dumps(schema)
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    return str(corpus)


def _features(*names: str) -> dict[str, Any]:
    return {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": names, "writerFeatures": names}


def test_a_feature_that_is_not_known_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = asking(tmp_path / "corpus", _features("deletionVectors"), {})
    for verb in (["stats"], ["verify"], ["query", "from episodes"], ["compact"]):
        assert call(["corpus", *verb, corpus]) == 2
        said = capfd.readouterr().err
        assert "deletionVectors" in said and "traceback" not in said
    with pytest.raises(UserError, match="v2Checkpoint"):
        store.open(asking(tmp_path / "other", _features("v2Checkpoint"), {}))


def test_columns_under_other_names_are_not_read_as_something_else(tmp_path: Path) -> None:
    mapped = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "99"}
    corpus = asking(tmp_path / "corpus", {"minReaderVersion": 2, "minWriterVersion": 5}, mapped)
    with pytest.raises(UserError, match="needs 'columnMapping'"):
        store.open(corpus)


def test_a_feature_that_changes_nothing_here_is_read(tmp_path: Path) -> None:
    assert store.open(asking(tmp_path / "corpus", _features("timestampNtz"), {})).count() == 20


def _changed(place: Path, change: Callable[[list[dict[str, Any]]], object]) -> str:
    """A copy of a small corpus whose log states other columns."""
    corpus = Path(shutil.copytree(GOLDEN, place))
    entry = corpus / "episodes/_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    about = next(action["metaData"] for action in actions if "metaData" in action)
    schema = json.loads(about["schemaString"])
    change(schema["fields"])
    about["schemaString"] = json.dumps(schema)
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    return str(corpus)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("error", lambda field: field["type"]["fields"].pop(), "error.message is missing"),
        ("number", lambda field: field.update(type="string"), "number is string, and not int64"),
        ("status", lambda field: field.update(name="other"), "status is missing"),
    ],
)
def test_a_table_with_other_columns_is_named(
    name: str, change: Callable[[Any], object], told: str, tmp_path: Path
) -> None:
    def one(fields: list[dict[str, Any]]) -> None:
        change(next(field for field in fields if field["name"] == name))

    with pytest.raises(UserError, match="is not one of episodes: " + told):
        store.open(_changed(tmp_path / "corpus", one))


def test_a_table_of_thousands_of_columns_is_not_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more = [{"name": f"c{n}", "type": "long", "nullable": True, "metadata": {}} for n in range(5000)]
    wide = {"name": "wide", "type": {"type": "struct", "fields": more}, "nullable": True, "metadata": {}}
    for number, added in enumerate((more, [wide])):
        corpus = _changed(tmp_path / str(number), lambda fields, added=added: fields.extend(added))
        for verb in (["release", "first"], ["stats"]):
            assert call(["corpus", *verb, corpus]) == 2
            said = capfd.readouterr().err
            assert "columns and fields in them" in said and "traceback" not in said


@pytest.mark.parametrize("at", [2**62, -(2**62), 2**63 - 1])
def test_a_commit_at_no_time_is_not_released(at: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = Path(shutil.copytree(GOLDEN, tmp_path / "corpus"))
    for entry in (corpus / "episodes/_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = at
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    assert call(["corpus", "release", "first", str(corpus)]) == 2
    said = capfd.readouterr().err
    assert "as the time of its version" in said and "traceback" not in said, said
