"""The folder of a run belongs to whoever holds its lease."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfplay.errors import Damaged
from selfplay.io import run_files
from selfplay.nets import weights
from selfplay.store import Fenced, acquire
from selfplay.store.table import lease
from trainers.kinds import REASONING, SELF_PLAY
from trainers.launch import sweep
from trainers.recipe import load_recipe
from trainers.run import history_thinning, run_folder
from trainers.run.run_folder import RunFolder
from trainers.run.run_state import SCHEMA


def test_a_driver_that_was_replaced_writes_nothing_over(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        before = RunFolder(str(run), config, SELF_PLAY, first)
        before.begin("{}")
        before.state.version = 3
        before.save()
        first.release()  # as its heartbeats stop to arrive
        with acquire(str(run), "second") as second:
            after = RunFolder(str(run), config, SELF_PLAY, second)
            after.state.version = 7
            after.save()
            with pytest.raises(Fenced):
                before.save()
    assert run_files.read_state(str(run))["version"] == 7


def test_a_late_write_of_a_driver_that_was_replaced_changes_nothing(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        RunFolder(str(run), config, SELF_PLAY, first).begin("{}")
    (sent,) = (run / "state").iterdir()
    late = sent.read_text().replace('"version": -1', '"version": 3')
    with acquire(str(run), "second") as second:
        after = RunFolder(str(run), config, SELF_PLAY, second)
        after.begin("{}")
        sent.write_text(late)  # a put that was under way while the lease ran out
        assert after.reload().version == -1
    assert RunFolder(str(run), config, SELF_PLAY).state.version == -1


def test_states_of_drivers_long_gone_are_deleted(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    for _ in range(4):
        with acquire(str(run), "somebody") as held:
            folder = RunFolder(str(run), config, SELF_PLAY, held)
            folder.begin("{}")
            folder.forget_old()
    assert run_files.state_epochs(str(run)) == [3, 4]


def test_a_run_of_schema_1_goes_on(tmp_path: Path) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "first") as first:
        RunFolder(str(run), config, SELF_PLAY, first).begin("{}")
    (saved,) = (run / "state").iterdir()
    saved.rename(run / "state.json")
    old = json.loads((run / "state.json").read_text())
    del old["sha256"]  # schema 1 had no seal
    (run / "state.json").write_text(json.dumps({**old, "schema": 1, "version": 3}))
    with acquire(str(run), "second") as second:
        folder = RunFolder(str(run), config, SELF_PLAY, second)
        assert folder.state.version == 3
        folder.begin("{}")
    saved = run_files.read_state(str(run))
    assert (saved["version"], saved["schema"]) == (3, SCHEMA)
    assert not (run / "state.json").exists()


def test_claims_and_weights_do_not_pile_up_and_no_number_is_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = load_recipe("tic_tac_toe"), str(tmp_path / "run")
    tensors = {"a": np.zeros(1, np.float32)}
    monkeypatch.setattr(run_folder, "MOST_WEIGHTS", 5)
    with acquire(run, "somebody") as held:
        folder = RunFolder(run, config, SELF_PLAY, held)
        folder.begin("{}")
        for version in range(1, 205):
            assert weights.save_version(run, version, tensors, {}) == version
            claim = Path(run_files.claim_uri(run, version))
            os.utime(claim, (1e9 + 60 * version,) * 2)  # a version a minute
            folder.state.version = version
        folder.forget_old()
    assert len(list((tmp_path / "run" / "weights").glob("*.claim"))) == 61
    kept = run_files.versions(run)
    assert kept == [40, 80, 120, 160, 200, 201, 202, 203, 204], "every 40th, where every 10th would be too many"
    assert weights.save_version(run, 3, tensors, {}) == 205, "a driver that was replaced long ago"


def test_a_million_versions_are_in_order(tmp_path: Path) -> None:
    for version in (999_998, 999_999, 1_000_000):
        assert weights.save_version(str(tmp_path), version, {"a": np.zeros(1, np.float32)}, {}) == version
    assert run_files.newest_taken(str(tmp_path)) == 1_000_000
    os.utime(run_files.claim_uri(str(tmp_path), 999_998), (1e9, 1e9))
    assert run_files.old_claims(str(tmp_path)) == [run_files.claim_uri(str(tmp_path), 999_998)]


def test_leases_of_holders_long_gone_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "KEPT", 3)
    for epoch in range(1, 8):
        with acquire(str(tmp_path), "somebody") as held:
            assert held.epoch == epoch
    assert {path.name.split(".")[0] for path in (tmp_path / "lease").iterdir()} == {"000005", "000006", "000007"}


def test_a_history_is_coarse_at_its_beginning_and_fine_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_thinning, "MOST", 10)
    rows: list[tuple[str, int]] = []
    for version in range(500):
        for kind in ("random", "exact") if version % 50 else ("random", "exact", "seldom"):
            rows.append((kind, version))
            rows = history_thinning.thinned(rows, lambda row: row[0], lambda row: row[1])
    for kind in ("random", "exact"):
        versions = [version for of, version in rows if of == kind]
        assert versions[0] == 0 and versions[-10:] == list(range(490, 500)) and len(versions) <= 20
    assert [version for of, version in rows if of == "seldom"] == list(range(0, 500, 50))


def test_damaged_files_of_one_name_are_all_kept(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        (tmp_path / "config.json").write_text(text)
        run_files.set_aside(str(tmp_path), str(tmp_path / "config.json"))
    found = {file.name: file.read_text() for file in (tmp_path / "damaged").iterdir()}
    assert found == {"config.json": "first", "config.json.1": "second", "config.json.2": "third"}


@pytest.mark.parametrize("lost", ["config.json", "run.json"])
def test_what_is_left_of_a_run_is_not_taken_for_an_empty_folder(tmp_path: Path, lost: str) -> None:
    config, run = load_recipe("tic_tac_toe"), tmp_path / "run"
    with acquire(str(run), "somebody") as held:
        RunFolder(str(run), config, SELF_PLAY, held).begin("{}")
    shutil.rmtree(run / "begun")
    (run / lost).unlink()
    with pytest.raises(Damaged, match=f"{lost} is damaged: it is missing"):
        RunFolder(str(run), config, SELF_PLAY)


def test_only_what_a_run_writes_is_swept_where_its_folder_has_vanished(tmp_path: Path) -> None:
    """A person may have put something else in its place meanwhile."""
    ours = ["weights/000003.safetensors", "weights/000003.claim", "checkpoints/000001-000000010.safetensors",
            "state/000001.json", "lease/000001.json", "logs/20260101-101010-77.log", "status.json", "metrics.prom",
            "tensorboard/events.out.tfevents.1.host", "corpus/episodes/kind=game/run_id=a/x.parquet",
            "weights/.partial-0123456789abcdef0123456789abcdef"]  # fmt: skip
    theirs = ["notes.txt", "weights/mine.pt", "state/plan.md", "logs/diary.txt", "corpus/questions.csv", "sub/a.json"]
    run = tmp_path / "run"
    for name in (*ours, *theirs):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    (run / "empty").mkdir()
    old = run / "weights" / "000002.safetensors"
    old.write_text("")
    os.utime(old, (1.0, 1.0))
    sweep(run, 1e6)
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert left == {*theirs, "weights/000002.safetensors"} and (run / "empty").is_dir()
    for name in left:
        (run / name).unlink()
    shutil.rmtree(run)
    for name in ours:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    (run / "config.json").write_text("{}")
    sweep(run, 1e6)
    assert all((run / name).exists() for name in ours), "another run has begun there"
    (run / "config.json").unlink()
    sweep(run, 1e6)
    assert not run.exists()


def test_counts_are_written_beside_the_state_that_belongs_to_the_checkpoint(tmp_path: Path) -> None:
    config, run = load_recipe("parity_cot"), str(tmp_path / "run")
    with acquire(run, "first") as first:
        folder = RunFolder(run, config, REASONING, first)
        folder.begin("{}")
        folder.state.round = 3
        folder.save()
        folder.state.round = 4  # learned, and not yet in a checkpoint
        folder.amend(in_flight={"r000004-0000": 8}, lost_episodes=2)
        assert (folder.reload().round, folder.state.lost_episodes) == (3, 2)
        first.release()
        with acquire(run, "second") as second, pytest.raises(Fenced):
            assert RunFolder(run, config, REASONING, second).state.in_flight == {"r000004-0000": 8}
            folder.amend(in_flight={})
