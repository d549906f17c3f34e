"""A run's small files become few while it goes on; where that fails, the run goes on all the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyspiel
import pytest
import ray

from selfplay import store
from selfplay.episode import Provenance, random_episode
from selfplay.store.table import maintenance, side_tables
from selfplay.store.verify.verify import verify_corpus
from trainers.run import auto_compaction
from trainers.run.auto_compaction import Tidier
from trainers.run.placement import Place

GAME = pyspiel.load_game("tic_tac_toe")


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Run:
    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id, self.blocks = uri, run_id, 0
        self.committer = store.Committer(uri, run_id, 1)
        self.epoch = self.committer.register("p0").epoch
        self.writer = store.Writer(uri, "p0", self.epoch)

    def write(self, blocks: int) -> None:
        provenance = Provenance(self.run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
        for number in range(self.blocks, self.blocks + blocks):
            game = random_episode(GAME, number, provenance, slot="p0", epoch=self.epoch, number=number)
            self.committer.commit([self.writer.write([game])[0]])
        self.blocks += blocks


def digests(uri: str) -> pa.Table:
    return store.open(uri).to_arrow(columns=["episode_id", "content_digest"]).sort_by("episode_id")


def ended(tidier: Tidier) -> None:
    ray.wait([tidier._under_way], timeout=60)
    tidier.archived(0)
    assert tidier._under_way is None


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(auto_compaction, "MOST_FILES", 8)
    return str(tmp_path / "corpus")


def test_many_files_become_few_beside_who_writes(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = Run(uri, "one"), Run(uri, "two")
    run.write(5)
    other.write(9)
    tidier = Tidier(uri, "one", Place(), None)  # a driver that goes on: five are there
    run.write(2)
    tidier.archived(2)
    assert tidier._under_way is None and len(store.open(uri).files()) == 16
    run.write(1)
    tidier.archived(1)
    run.write(3)  # meanwhile
    tidier.archived(3)
    ended(tidier)
    before = digests(uri)
    files = store.open(uri).files()
    of_others = [file for file in files if file["partition.run_id"] == "two"]
    assert len(of_others) == 9, "they are another run's business"
    assert 1 <= len(files) - 9 <= 4
    assert '"event": "compacted"' in capsys.readouterr().out
    assert before.num_rows == 20 and len(set(before["episode_id"].to_pylist())) == 20
    run.write(5)  # three were counted meanwhile
    tidier.archived(5)
    ended(tidier)
    assert len([file for file in store.open(uri).files() if file["partition.run_id"] == "one"]) == 1
    assert not [check for check in verify_corpus(store.open(uri)) if check.state == "false"]
    assert digests(uri).num_rows == 25


def test_a_failure_is_told_of_and_the_run_goes_on(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(uri, "one")
    run.write(8)
    tidier = Tidier(uri, "one", Place(), None)
    shutil.move(uri, uri + ".away")
    tidier.archived(0)
    ended(tidier)
    assert '"event": "not compacted"' in capsys.readouterr().out
    shutil.move(uri + ".away", uri)
    tidier.archived(7)
    assert tidier._under_way is None, "not at once again"
    tidier.archived(1)
    ended(tidier)
    assert len(store.open(uri).files()) == 1


def test_one_that_is_killed_half_way_does_no_harm(uri: str) -> None:
    run = Run(uri, "one")
    run.write(8)
    before = digests(uri)
    tidier = Tidier(uri, "one", Place(), None)
    whole = tidier._do
    dying = {"num_cpus": 0, "max_retries": 0, "runtime_env": {"env_vars": {"SELFPLAY_FAULT": "before_rewrite"}}}
    tidier._do = ray.remote(auto_compaction.do).options(**dying)
    tidier.archived(0)
    ended(tidier)
    assert len(store.open(uri).files()) == 8 and digests(uri) == before
    tidier._do = whole
    tidier.archived(8)
    ended(tidier)
    assert len(store.open(uri).files()) == 1 and digests(uri) == before


def test_old_history_is_deleted_and_a_kill_half_way_does_no_harm(
    uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(uri, "one")
    run.write(8)
    maintenance.compact(uri)
    store.open(uri)._table.create_checkpoint()
    for path in Path(uri).rglob("*.*"):
        os.utime(path, (time.time() - 9 * 86400,) * 2)
    run.write(1)
    before, log = digests(uri), Path(uri) / "episodes" / "_delta_log"
    tidier = Tidier(uri, "one", Place(), 7.0)
    whole = tidier._do
    dying = {"num_cpus": 0, "max_retries": 0, "runtime_env": {"env_vars": {"SELFPLAY_FAULT": "before_entry:3"}}}
    tidier._do = ray.remote(auto_compaction.do).options(**dying)
    tidier.entered(0)
    ended(tidier)
    assert not (log / f"{1:020d}.json").exists() and (log / f"{2:020d}.json").exists()
    assert digests(uri) == before and store.Committer(uri, "one", 1).table_version == store.open(uri).version
    monkeypatch.setattr(auto_compaction, "TRIM_S", 0.0)
    tidier._do = whole
    tidier.entered(0)
    monkeypatch.undo()
    ended(tidier)
    assert '"event": "deleted history"' in capsys.readouterr().out
    assert digests(uri) == before and not (log / f"{2:020d}.json").exists()
    assert len(list(Path(uri).glob("episodes/kind=*/*/*.parquet"))) == 2


def test_rows_of_side_tables_become_few_files_too(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_compaction, "MOST_ROWS", 4)
    run = Run(uri, "one")
    run.write(3)
    tidier = Tidier(uri, "one", Place(), None)
    for version in range(4):
        tidier.entered(store.append(uri, "policies", [{"policy_id": "one", "version": version, "digest": "d"}]))
    ended(tidier)
    assert side_tables.small_files(uri) == 1 and store.open(uri).table("policies").num_rows == 4
    assert len(store.open(uri).files()) == 3, "they are not yet so many"
