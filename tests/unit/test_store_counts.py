"""What a run has archived is known from the log: exact after anything that can happen, without reading an episode."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.store.table import commit, counts, maintenance, snapshot
from selfplay.store.table.counts import Counts, archived_at, archived_by
from selfplay.store.verify import verify

GAME = pyspiel.load_game("tic_tac_toe")


def block(uri: str, run_id: str, slot: str, epoch: int, number: int, games: int = 3) -> store.Block:
    provenance = Provenance(run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    made = [
        random_episode(GAME, n, provenance, slot=slot, epoch=epoch, number=n)
        for n in range(games * number, games * (number + 1))
    ]
    return store.write_block(uri, to_batch(made), slot, epoch, number)


def by_reading(uri: str, run_id: str) -> Counts:
    batches = store.open(uri).episodes(pc.field("run_id") == run_id, ["trainable", "game"])
    return sum((counts.of_batch(batch) for batch in batches), Counts())


def archive(uri: str, run_id: str = "run", epoch: int = 1, blocks: int = 4) -> store.Committer:
    committer = store.Committer(uri, run_id, epoch)
    writer = committer.register("p0000")
    for number in range(blocks):
        made = block(uri, run_id, "p0000", writer.epoch, number)
        committer.commit([made])
        committer.commit([made])  # again, as after a crash
    return committer


def read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("episodes were read")

    monkeypatch.setattr(snapshot.Snapshot, "episodes", refuse)


def test_a_restart_reads_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path)
    archive(uri, "other", blocks=2)
    archive(uri, epoch=1)
    archive(uri, epoch=2, blocks=1)
    wanted = by_reading(uri, "run")
    assert wanted.episodes == 15 and wanted.positions == 0  # random moves: no search chose them
    version = store.open(uri).version
    read_nothing(monkeypatch)
    store.Committer(uri, "run", 3)
    assert archived_by(store.open(uri), "run") == archived_at(uri, "run", version) == wanted
    assert archived_by(store.open(uri), "other").episodes == 6


def test_counts_of_every_kind(tmp_path: Path) -> None:
    golden = Path(__file__).parent.parent / "golden" / "corpus_v1"
    for batch in store.open(str(golden)).episodes(None, ["trainable", "game", "kind", "episode_id"]):
        found = counts.of_batch(batch)
        steps = [step for row in batch.to_pylist() if row["game"] for step in row["game"]["steps"]]
        assert found.episodes == batch.num_rows
        assert found.positions == sum(step["source"] == "search" for step in steps)
        assert found.training_rows <= found.positions


def test_what_older_versions_of_the_package_archived_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path)
    archive(uri, epoch=1, blocks=2)
    with monkeypatch.context() as older:
        older.setattr(counts, "counters", lambda *_: {})
        archive(uri, epoch=2, blocks=2)
    assert counts.recorded(store.open(uri)._table, "run") is None
    assert archived_by(store.open(uri), "run").episodes == 12, "read, as the counters are known to be wrong"
    archive(uri, epoch=3, blocks=1)
    read_nothing(monkeypatch)
    assert archived_by(store.open(uri), "run").episodes == 15


def test_compaction_changes_no_count_and_deletion_all(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committer = archive(uri)
    before = archived_by(store.open(uri), "run")
    maintenance.compact(uri)
    assert archived_by(store.open(uri), "run") == before
    maintenance.delete_run(uri, "run", "a test")
    assert archived_by(store.open(uri), "run") == Counts()
    assert archived_at(uri, "run", store.open(uri).version - 1) == before, "an older version has what it had"
    writer = committer.register("p0001")  # its driver does not know
    committer.commit([block(uri, "run", "p0001", writer.epoch, 0)])
    assert archived_by(store.open(uri), "run") == by_reading(uri, "run") and by_reading(uri, "run").episodes == 3


def test_counts_that_were_left_out_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path)
    committer = archive(uri, blocks=1)
    writer = committer.register("p0001")
    made = block(uri, "run", "p0001", writer.epoch, 0)
    with pytest.raises(ValueError, match="has 3 episodes and counts 0"):
        committer.commit([dataclasses.replace(made, counts=Counts())])
    assert not list(verify._miscounted(store.open(uri)))
    committer._counts = Counts()  # as a fault in our own code would leave them
    committer.commit([made])
    (check,) = verify._miscounted(store.open(uri))
    assert check.subject == "run run" and "hold 6 episodes, and its counter in the log says 3" in check.reason
    store.Committer(uri, "run", 2)
    assert not list(verify._miscounted(store.open(uri))) and archived_by(store.open(uri), "run").episodes == 6


def test_a_slot_that_has_had_all_its_writers_has_a_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "WRITERS_PER_DRIVER", 4)
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 2)
    given = [committer.register("p0000") for _ in range(10)]
    assert [(one.slot, one.epoch) for one in given] == [
        *(("p0000", epoch) for epoch in range(8, 12)),
        *(("p0000.1", epoch) for epoch in range(8, 12)),
        ("p0000.2", 8),
        ("p0000.2", 9),
    ]
    for one in (given[3], given[9]):
        committer.commit([block(uri, "run", one.slot, one.epoch, 0)])
    newest = store.Committer(uri, "run", 3)
    assert newest.register("p0000") == store.Registration("p0000", 12, 0)
    table = store.open(uri)._table
    assert all(commit.is_fenced(table, "run", one.slot, one.epoch) for one in given)
    assert not commit.is_fenced(table, "run", "p0000", 12)


def test_the_newest_episodes_are_found_without_reading_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfplay.store.corpus import newest

    monkeypatch.setattr(newest, "_AT_ONCE", 2)
    monkeypatch.setattr(newest, "_SKEW_US", 0)
    uri = str(tmp_path)
    archive(uri, blocks=12)  # each commit is later than the last
    mine = pc.field("run_id") == "run"
    corpus, opened = store.open(uri), []
    everything = corpus.latest(mine, 10**9)
    ids = everything["episode_id"].to_pylist()
    assert everything.num_rows == 36
    reading = newest._read

    def counted(corpus: store.Corpus, paths: list[str], *more: object) -> list[pa.Table]:
        opened.extend(paths)
        return reading(corpus, paths, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(newest, "_read", counted)
    some = corpus.latest(mine, 20)
    assert some["episode_id"].to_pylist() == ids[-some.num_rows :]
    assert sum(some["n_steps"].to_pylist()) >= 20 > sum(some["n_steps"].to_pylist()[1:])
    assert corpus.newest(2) == ids[-1:-3:-1]
    assert len(set(opened)) <= 6
