"""The log can be shortened: what was released or learned from stays readable, and no episode comes twice."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pyspiel
import pytest
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.store import counts, history, log, repair, upkeep, verify
from selfplay.store.changes import follow, run_at
from selfplay.store.log_trim import trim_log
from selfplay.store.table import open_table

GAME = pyspiel.load_game("tic_tac_toe")


class Run:
    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id, self.number = uri, run_id, 0
        self.committer = store.Committer(uri, run_id, 1)
        self.epoch = self.committer.register("p0").epoch

    def block(self, number: int) -> store.Block:
        provenance = Provenance(self.run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
        game = random_episode(GAME, number, provenance, slot="p0", epoch=self.epoch, number=number)
        return store.write_block(self.uri, to_batch([game]), "p0", self.epoch, number)

    def write(self, blocks: int) -> None:
        for _ in range(blocks):
            self.committer.commit([self.block(self.number)])
            self.number += 1


def ids(corpus: store.Corpus, where: pc.Expression) -> list[str]:
    return sorted(corpus.to_arrow(where, ["episode_id"])["episode_id"].to_pylist())


def age(uri: str, before: int, days: float) -> None:
    for entry in (Path(uri) / "episodes" / "_delta_log").iterdir():
        if entry.name[:20].isdigit() and int(entry.name[:20]) < before:
            os.utime(entry, (time.time() - days * 86400,) * 2)


@pytest.mark.slow
def test_a_shorter_log_loses_neither_releases_nor_lineage_nor_exactly_once(tmp_path: Path) -> None:
    uri = str(tmp_path)
    one, two = Run(uri, "one"), Run(uri, "two")
    one.write(60)
    two.write(60)
    released, mine = store.open(uri).version, pc.field("run_id") == "one"
    store.append(uri, "releases", [{"name": "first", "table_version": released}])
    one.write(50)
    used = store.open(uri).version
    refill = {"what": "refill", "table_version": used, "first_step": 0}
    store.append(uri, "uses", [{"run_id": "one", "version_out": 1, "digest_out": "d", "events": [refill]}])
    one.write(160)
    wanted = {version: ids(store.open(uri, version), mine) for version in (released, used)}
    newest, held = store.open(uri).version, history.had_at(uri, store.open(uri).version)
    before = counts.archived_by(store.open(uri), "one")
    age(uri, newest - 20, 40)
    assert trim_log(uri, 50, dry_run=False).files == 0, "nothing is so old"
    planned = trim_log(uri, 30)
    done = trim_log(uri, 30, dry_run=False)
    assert planned == done and done.kept == (released, used) and done.files > 100
    assert newest - 130 < done.oldest < newest
    assert trim_log(uri, 30, dry_run=False).files == 0
    for version in (released, used, done.oldest, newest):
        assert store.open(uri, version).version == version
    assert {version: ids(store.open(uri, version), mine) for version in (released, used)} == wanted
    with pytest.raises(UserError, match="has no version"):
        store.open(uri, 50)
    with pytest.raises(UserError, match="no longer reaches back"):
        next(follow(uri, 10, until=0.0))
    assert len(list(follow(uri, done.oldest, ["episode_id"], until=0.0))) == newest - done.oldest

    assert not repair.is_damaged(uri) and not log.check(f"{uri}/episodes") and not repair.plan(uri).steps
    again = store.Committer(uri, "one", 1)  # of the same driver, that has died and been started again
    assert again.commit([one.block(one.number - 1)])[0].status == "already"
    assert counts.archived_by(store.open(uri), "one") == before
    upkeep.compact(uri)
    upkeep.vacuum(uri, hours=0, dry_run=False)
    corpus, which = run_at(uri, "one", used)  # its files are gone but for those of the release
    assert corpus.version != used and ids(corpus, which) == wanted[used]
    assert history.had_at(uri, newest) == held


@pytest.mark.slow
def test_it_can_be_shortened_again_and_again(tmp_path: Path) -> None:
    uri = str(tmp_path)
    run, wanted = Run(uri, "one"), {}
    for number in range(3):
        run.write(110)
        version = store.open(uri).version
        wanted[version] = ids(store.open(uri, version), pc.field("run_id") == "one")
        refill = {"what": "refill", "table_version": version, "first_step": 0}
        store.append(uri, "uses", [{"run_id": "one", "version_out": number, "digest_out": "d", "events": [refill]}])
        age(uri, version, 40)
        trim_log(uri, 30, dry_run=False)
    upkeep.compact(uri)
    upkeep.vacuum(uri, hours=0, dry_run=False)
    for version, had in wanted.items():
        corpus, which = run_at(uri, "one", version)
        assert ids(corpus, which) == had
    assert len(list((tmp_path / "history").glob("*.base.json"))) == 1


def test_the_command(tmp_path: Path) -> None:
    uri = str(tmp_path)
    Run(uri, "one").write(8)
    store.open(uri)._table.create_checkpoint()
    Run(uri, "two").write(2)
    age(uri, 10**6, 40)
    log_of = tmp_path / "episodes" / "_delta_log"
    whole = (log_of / f"{3:020d}.json").read_bytes()
    (log_of / f"{3:020d}.json").write_bytes(whole[:50])
    with pytest.raises(UserError, match="damaged"):
        trim_log(uri, 30, dry_run=False)
    (log_of / f"{3:020d}.json").write_bytes(whole)
    age(uri, 10**6, 40)
    told = CliRunner().invoke(app, ["vacuum", uri, "--log-days", "30"])
    assert told.exit_code == 0 and "would be deleted; it reaches back to version" in told.output
    told = CliRunner().invoke(app, ["vacuum", uri, "--log-days", "30", "--yes", "--json"])
    assert json.loads(told.output)["log"]["files"] == 9
    assert store.open(uri).count() == 10


def test_blocks_of_a_run_that_was_deleted_before_the_log_begins_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path)
    gone, other = Run(uri, "gone"), Run(uri, "other")
    gone.write(3)
    monkeypatch.setattr(upkeep, "time", SimpleNamespace(time=lambda: time.time() - 9 * 86400, sleep=time.sleep))
    upkeep.delete_run(uri, "gone", "a test")
    other.write(2)
    open_table(f"{uri}/episodes").create_checkpoint()  # without the files that were removed more than a week ago
    other.write(2)
    age(uri, store.open(uri).version, 60)
    assert trim_log(uri, 30, dry_run=False).files
    assert verify.uncommitted(store.open(uri)) == [] and not repair.plan(uri).steps
    late = gone.block(gone.number)
    assert gone.committer.commit([late])[0].status == "committed"
    assert store.open(uri).count() == 5
    assert verify.uncommitted(store.open(uri)) == [] and not repair.plan(uri).steps
