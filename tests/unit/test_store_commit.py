"""Committing: each block once, however often it is offered; who was replaced is refused; many runs share a table."""

from __future__ import annotations

import os
from pathlib import Path

import pyspiel
import pytest

from selfplay import store
from selfplay.episode import Episode, Provenance, random_episode, to_batch
from selfplay.episode.schema import SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.store.table import maintenance
from selfplay.store.table.table import episodes_uri

GAME = pyspiel.load_game("tic_tac_toe")


def provenance(run_id: str = "run") -> Provenance:
    return Provenance(run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")


def play(count: int, slot: str, epoch: int, first: int = 0, run_id: str = "run") -> list[Episode]:
    numbers = range(first, first + count)
    return [random_episode(GAME, n, provenance(run_id), slot=slot, epoch=epoch, number=n) for n in numbers]


def block(uri: str, number: int, slot: str, epoch: int, run_id: str = "run", count: int = 3) -> store.Block:
    return store.write_block(uri, to_batch(play(count, slot, epoch, number * count, run_id)), slot, epoch, number)


def ids(uri: str) -> list[str]:
    return sorted(episode.episode_id for episode in store.open(uri).records())


def test_commit_read_and_commit_again(tmp_path: Path) -> None:
    uri = str(tmp_path / "my runs, é #1")  # delta-rs escapes such names, and the disk does not
    committer = store.Committer(uri, "run", 1)
    slot = committer.register("a0")
    assert (slot.epoch, slot.next_number) == (1000, 0)
    blocks = [block(uri, n, "a0", slot.epoch) for n in range(2)]
    receipts = committer.commit(blocks)
    assert [(r.status, r.number, r.rows) for r in receipts] == [("committed", 0, 3), ("committed", 1, 3)]
    again = committer.commit([*blocks, block(uri, 2, "a0", slot.epoch)])
    assert [r.status for r in again] == ["already", "already", "committed"]
    restarted = store.Committer(uri, "run", 1)
    assert {r.status for r in restarted.commit(blocks)} == {"already"}, "killed before it could say so"
    corpus = store.open(uri)
    assert corpus.count() == 9 == len(set(ids(uri)))
    assert corpus.version == restarted.table_version > again[-1].table_version
    assert store.open(uri, receipts[0].table_version).count() == 6
    read = corpus.get("run/a0/1000/4").game
    played = play(9, "a0", 1000)[4].game
    assert read and played and read.replay_digest == played.replay_digest


def test_a_restarted_driver_takes_over_and_the_old_one_is_fenced(tmp_path: Path) -> None:
    uri = str(tmp_path)
    old = store.Committer(uri, "run", 1)
    first = old.register("a0")
    old.commit([block(uri, 0, "a0", first.epoch)])
    late = block(uri, 1, "a0", first.epoch)
    new = store.Committer(uri, "run", 2)
    with pytest.raises(store.Fenced, match="taken over by epoch 2"):
        old.commit([late])
    second = new.register("a0")
    assert (second.epoch, second.next_number) == (2000, 0)
    with pytest.raises(store.Fenced, match="epoch 1000 is refused"):
        new.commit([late])
    new.commit([block(uri, 0, "a0", second.epoch)])
    with pytest.raises(store.Fenced):
        store.Committer(uri, "run", 1)
    assert store.open(uri).count() == 6


def test_a_restarted_writer_fences_the_one_before_and_a_living_one_goes_on(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 1)
    first = committer.register("a0")
    lost = block(uri, 0, "a0", first.epoch)
    second = committer.register("a0")
    assert second.epoch == 1001
    with pytest.raises(store.Fenced):
        committer.commit([lost])
    committer.commit([block(uri, 0, "a0", second.epoch)])
    reopened = store.Committer(uri, "run", 1)
    assert reopened.register("a0", resume=1001) == store.Registration("a0", 1001, 1)
    with pytest.raises(store.Fenced):
        reopened.register("a0", resume=1000)
    assert reopened.register("a0").epoch == 1002


def test_gaps_missing_files_and_strangers_are_refused_whole(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 1)
    a, b = committer.register("a").epoch, committer.register("b").epoch
    good = block(uri, 0, "b", b)
    with pytest.raises(store.OutOfOrder, match="block 0 must come next, got 1"):
        committer.commit([good, block(uri, 1, "a", a)])
    gone = block(uri, 0, "a", a)
    os.unlink(Path(episodes_uri(uri)) / gone.path)
    with pytest.raises(ValueError, match="never written"):
        committer.commit([good, gone])
    with pytest.raises(ValueError, match="of run other"):
        committer.commit([block(uri, 0, "a", a, run_id="other")])
    assert store.open(uri).count() == 0
    assert committer.commit([block(uri, 1, "b", b), good])[1].status == "committed", "any order within a call"
    assert store.open(uri).count() == 6


def test_writing_a_block_again_keeps_the_file(tmp_path: Path) -> None:
    batch = to_batch(play(3, "a0", 1000))
    one = store.write_block(str(tmp_path), batch, "a0", 1000, 0)
    path = Path(episodes_uri(str(tmp_path))) / one.path
    before = path.stat().st_mtime_ns
    assert store.write_block(str(tmp_path), batch, "a0", 1000, 0) == one
    assert path.stat().st_mtime_ns == before and one.sha256 in one.path


def test_a_block_holds_one_slot_and_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one epoch"):
        store.write_block(str(tmp_path), to_batch(play(1, "a", 1) + play(1, "a", 2)), "a", 1, 0)
    with pytest.raises(ValueError, match="slot b"):
        store.write_block(str(tmp_path), to_batch(play(1, "a", 1)), "b", 1, 0)


def test_runs_share_a_table(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committers = {run: store.Committer(uri, run, 1) for run in ("red", "blue")}
    epochs = {run: committer.register("a0").epoch for run, committer in committers.items()}
    for number in range(4):
        for run, committer in committers.items():
            assert committer.commit([block(uri, number, "a0", epochs[run], run)])[0].status == "committed"
    assert store.open(uri).count() == 24 == len(set(ids(uri)))


def test_a_newer_schema_is_one_sentence(tmp_path: Path) -> None:
    uri = str(tmp_path)
    store.Committer(uri, "run", 1)
    first = Path(episodes_uri(uri)) / "_delta_log" / f"{0:020d}.json"
    first.write_text(first.read_text().replace(f"schema_version={SCHEMA_VERSION}", "schema_version=77"))
    for call in (lambda: store.open(uri), lambda: store.Committer(uri, "run", 2)):
        with pytest.raises(UserError, match="schema version 77.*update the package"):
            call()


def test_names_that_are_no_path_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run id"):
        store.Committer(str(tmp_path), "a/b", 1)
    with pytest.raises(UserError, match="slot"):
        store.Committer(str(tmp_path), "run", 1).register("a b")


def test_side_tables_hold_each_key_once(tmp_path: Path) -> None:
    uri = str(tmp_path)
    store.Committer(uri, "run", 1)
    row = {"env_id": "tic_tac_toe-v0", "ruleset_digest": "a", "game_string": "tic_tac_toe()", "licence": "CC0-1.0"}
    assert store.append(uri, "environments", [row, row]) == 1
    assert store.append(uri, "environments", [row, {**row, "ruleset_digest": "b"}]) == 1
    assert store.append(uri, "environments", []) == 0
    assert sorted(r["ruleset_digest"] for r in store.open(uri).environments()) == ["a", "b"]
    assert store.open(uri).table("policies").num_rows == 0
    with pytest.raises(ValueError, match="no column wrong"):
        store.append(uri, "runs", [{"wrong": 1}])
    for name in store.SIDE_TABLES:
        store.append(uri, name, [{}])
        assert store.open(uri).table(name).schema.names == store.SIDE_TABLES[name].schema.names


@pytest.mark.parametrize("upkept", ["", "compact", "vacuum", "delete"])
def test_a_number_that_is_taken_is_not_given_to_other_episodes(tmp_path: Path, upkept: str) -> None:
    """What was offered before is there already, whatever upkeep did; other episodes would be lost without a word."""
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 1)
    epoch = committer.register("a0").epoch
    blocks = [block(uri, n, "a0", epoch) for n in range(2)]
    committer.commit(blocks)
    others = [
        store.write_block(uri, to_batch(play(3, "a0", epoch, first)), "a0", epoch, 1) for first in (6, 2)
    ]  # of numbers that are not there yet, and of some that are
    if upkept in ("compact", "vacuum"):
        maintenance.compact(uri)
    if upkept == "delete":
        maintenance.delete_run(uri, "run", "test")
    if upkept == "vacuum":
        maintenance.vacuum(uri, hours=0, dry_run=False)
        others = others[1:] if not os.path.exists(f"{episodes_uri(uri)}/{others[0].path}") else others
    committer = store.Committer(uri, "run", 1)
    assert {receipt.status for receipt in committer.commit(blocks)} == {"already"}
    if upkept == "delete":
        return
    for other in others:
        with pytest.raises(store.Taken, match="block 1 of slot a0, epoch 1000, was committed with other episodes"):
            committer.commit([other, block(uri, 2, "a0", epoch)])
    assert store.open(uri).count() == 6
