"""The side tables grow with what they hold: their logs not with every row, their files not with every commit."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from selfplay import store
from selfplay.store.table import side_tables
from selfplay.store.table.table import SIDE_TABLES, Outdated, open_or_create


def policy(version: int, digest: str = "d") -> dict[str, object]:
    return {"policy_id": "run", "version": version, "digest": digest, "run_id": "run"}


def txns(table: Path) -> set[str]:
    lines = [line for entry in (table / "_delta_log").glob("*.json") for line in entry.read_text().splitlines()]
    return {action["txn"]["appId"] for line in lines if "txn" in (action := json.loads(line))}


def rows(uri: str, name: str = "policies") -> list[dict[str, object]]:
    return list(pa.table(DeltaTable(f"{uri}/{name}").to_pyarrow_table()).to_pylist())


def test_the_log_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    uri = str(tmp_path)
    for version in range(20):
        assert store.append(uri, "policies", [policy(version)]) == 1
        assert store.append(uri, "uses", [{"run_id": "run", "version_out": version, "digest_out": "d"}]) == 1
    assert txns(tmp_path / "policies") == {"policies run"} and txns(tmp_path / "uses") == {"uses run"}
    assert store.append(uri, "policies", [policy(n) for n in (3, 19, 20, 20)]) == 1, "each version is there once"
    assert store.append(uri, "policies", [policy(5, "another")]) == 1, "an older version of other weights is not there"
    assert store.append(uri, "policies", [policy(5, "another"), policy(5), policy(21)]) == 1
    assert sorted((row["version"], row["digest"]) for row in rows(uri)) == sorted(
        [(n, "d") for n in range(22)] + [(5, "another")]
    )


def test_rows_that_an_older_version_of_the_package_added_are_found(tmp_path: Path) -> None:
    uri = str(tmp_path)
    table = open_or_create(f"{uri}/policies", SIDE_TABLES["policies"].schema)
    mark = CommitProperties(app_transactions=[Transaction("policies/run/7/d", 12345)])
    old = pa.Table.from_pylist([policy(7)], schema=SIDE_TABLES["policies"].schema)
    write_deltalake(table, old, mode="append", commit_properties=mark)
    assert store.append(uri, "policies", [policy(7)]) == 0
    assert store.append(uri, "policies", [policy(7), policy(8)]) == 1
    assert len(rows(uri)) == 2


def test_rows_of_one_series_are_added_once_by_many_at_a_time(tmp_path: Path) -> None:
    uri, added = str(tmp_path), []

    def add() -> None:
        added.append(sum(store.append(uri, "releases", [{"name": name, "table_version": 1}]) for name in "abc"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == 3 and sorted(str(row["name"]) for row in rows(uri, "releases")) == ["a", "b", "c"]


def test_who_has_not_seen_all_of_a_series_is_told(tmp_path: Path) -> None:
    uri, one = str(tmp_path), {"author": "me", "name": "good", "value": "1"}
    assert store.append(uri, "annotations", [one, one], known=0) == 2
    with pytest.raises(Outdated):
        store.append(uri, "annotations", [one], known=0)
    assert store.append(uri, "annotations", [one], known=2) == 1


def test_many_files_become_few_beside_who_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path)
    for version in range(12):
        store.append(uri, "policies", [policy(version)])
        store.append(uri, "uses", [{"run_id": "run", "version_out": version, "digest_out": "d", "events": [
            {"what": "train", "first_step": version, "last_step": version}]}])  # fmt: skip
    before, uses = rows(uri), rows(uri, "uses")
    monkeypatch.setattr(side_tables, "_AT_ONCE", 5)
    assert side_tables.small_files(uri) == 24
    compacting = threading.Thread(target=side_tables.compact, args=(uri,))
    compacting.start()
    for version in range(12, 16):
        store.append(uri, "policies", [policy(version)])
    compacting.join()
    assert side_tables.compact(uri)[1] == 2
    assert sorted(rows(uri), key=lambda row: row["version"]) == before_and(before, range(12, 16), rows(uri))
    assert sorted(rows(uri, "uses"), key=lambda row: row["version_out"]) == sorted(
        uses, key=lambda row: row["version_out"]
    )
    assert store.append(uri, "policies", [policy(3), policy(15), policy(16)]) == 1
    assert side_tables.compact(uri)[1] == 2
    DeltaTable(f"{uri}/policies").create_checkpoint()
    side_tables.give_back(uri, hours=0)
    assert len(list((tmp_path / "policies").glob("*.parquet"))) == 1
    assert len(rows(uri)) == 17 and side_tables.compact(uri) == (2, 2)


def before_and(before: list[dict[str, object]], more: range, now: list[dict[str, object]]) -> list[dict[str, object]]:
    added = [row for row in now if row["version"] in more]
    return sorted([*before, *added], key=lambda row: row["version"])


def test_two_compactions_at_once_double_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path)
    for version in range(10):
        store.append(uri, "policies", [policy(version)])
    threads = [threading.Thread(target=side_tables.compact, args=(uri,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(uri)) == 10 and side_tables.small_files(uri) == 1


def test_entries_of_a_log_end_after_a_day(tmp_path: Path) -> None:
    uri, log = str(tmp_path), tmp_path / "policies" / "_delta_log"
    for version in range(6):
        store.append(uri, "policies", [policy(version)])
    DeltaTable(f"{uri}/policies").create_checkpoint()
    store.append(uri, "policies", [policy(6)])
    for entry in log.iterdir():
        os.utime(entry, (time.time() - 2 * 86400,) * 2)
    side_tables.give_back(uri)
    assert not (log / f"{0:020d}.json").exists()
    assert len(rows(uri)) == 7 and store.append(uri, "policies", [policy(6), policy(7)]) == 1
