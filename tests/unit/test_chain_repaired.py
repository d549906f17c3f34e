"""Honest corpora stay true after repairs, after what was cut short, and as redacted copies of older versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfplay import store
from selfplay.episode import random_episode
from selfplay.store.coverage import END
from selfplay.store.release.redacted import release_redacted
from selfplay.store.release.verifier.neighbours import Neighbours, Told
from selfplay.store.table import chain, deletions, maintenance
from selfplay.store.table.repair import carry_out, plan
from selfplay.store.verify.lengths import Lengths
from selfplay.store.verify.verify import verify_corpus
from tests.unit.test_chain import GAME, Run, lies


def test_closings_that_a_repair_takes_out_are_said_to_be_lost(tmp_path: Path) -> None:
    first = Run(str(tmp_path), slots=("a",))
    first.play("a", 3)
    second = Run(str(tmp_path), epoch=2, slots=("a",))
    second.play("a", 2)
    second.close()
    for file in (tmp_path / "closings").glob("*.parquet"):
        file.write_bytes(b"PAR1")
    carry_out([plan(str(tmp_path))])
    assert lies(str(tmp_path)) == []
    rows = store.open(str(tmp_path)).rows("closings")
    assert [(row["epoch"], row["how"], row["writers"]) for row in rows] == [(1, "not counted", [])]
    assert all(END in check.uncovered for check in verify_corpus(store.open(str(tmp_path))))
    Run(str(tmp_path), epoch=3, slots=("a",)).play("a", 1)  # closes the second, which it finds without a closing
    assert lies(str(tmp_path)) == []


def test_a_block_of_a_writer_that_archived_nothing_is_not_committed_again(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.play("a", 2)
    epoch = run.writers["b"].epoch
    run.writers["b"].write([random_episode(GAME, 2, run.provenance, slot="b", epoch=epoch, number=0)])
    run.close()  # the writer of b was killed between writing and committing
    entry = tmp_path / "episodes/_delta_log/00000000000000000001.json"
    entry.write_bytes(entry.read_bytes()[:40])
    carry_out([plan(run.uri)])
    assert store.open(run.uri).count() == 2 and lies(run.uri) == []


def test_an_entry_of_a_repair_that_was_cut_short_hides_no_later_one_of_the_same_version(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    for slot, count in (("a", 3), ("b", 2)):
        run.play(slot, count)
    run.close()
    some: list[dict[str, Any]] = [{"slot": "a", "epoch": 1000, "first": 0, "last": 2, "head": None}]
    deletions.enter_rows(run.uri, "run", store.open(run.uri).version, 3, some, "damaged", "repair")
    maintenance.delete_run(run.uri, "run", "wrong rules")
    assert lies(run.uri) == []


@pytest.mark.slow
def test_a_redacted_copy_of_an_older_version_is_not_held_to_what_came_later(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "corpus"), slots=("a",))
    run.play("a", 3)
    older = store.open(run.uri)
    run.play("a", 2)
    run.close()
    maintenance.delete_run(run.uri, "run", "wrong rules")
    done = release_redacted(older, "first", str(tmp_path / "copy"))
    copy = store.open(str(tmp_path / "copy"))
    assert done.true == 3 and chain.account(copy).lies == []
    assert not copy.rows("closings") and not copy.rows("deletions")


@pytest.mark.parametrize("taken_out", [True, False])
def test_a_parent_that_was_deleted_is_not_missed_by_the_released_verifier(taken_out: bool) -> None:
    plain = Neighbours()
    plain.writers["run", "b", 1000] = [Told(0, 0, -1, 0, "game", None, None, False)]
    plain.parents = [("other/a/1000/0", "run/a/1000/4"), ("other/a/1000/1", "run/a/1000/2")]
    gone = {"run_id": "run", "writers": [{"slot": "a", "epoch": 1000, "first": 0, "last": 4}]}
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("runs", "policies", "environments")}
    found = [name for name, _ in plain.lies(tables | {"deletions": [gone] if taken_out else []}, {})]
    assert found == ([] if taken_out else ["other/a/1000/1", "other/a/1000/0"])


@pytest.mark.parametrize(("digest", "false"), [(None, 0), ("b" * 64, 1)])
def test_games_without_a_configuration_may_be_cut_anywhere(digest: str | None, false: int) -> None:
    lengths = Lengths()
    for number, moves in enumerate((5, 9)):
        row = {"episode_id": f"run/a/0/{number}", "run_id": "run", "epoch": 0, "kind": "game", "origin": "self_play"}
        lengths.add({**row, "status": "truncated", "n_steps": moves, "config_digest": digest})
    assert len(list(lengths.lies())) == false
