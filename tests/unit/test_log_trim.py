"""Old history can be deleted: what was released stays readable, lineage is still known, no episode comes twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
import pyspiel
import pytest
from deltalake.transaction import AddAction
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import counts, history, log, log_trim, maintenance, repair
from selfplay.store.table.changes import follow, run_at
from selfplay.store.table.log_trim import delete_orphans, is_due, trim_log
from selfplay.store.table.snapshot import VersionGone
from selfplay.store.table.table import open_table
from selfplay.store.verify import verify

GAME = pyspiel.load_game("tic_tac_toe")


class Run:
    def __init__(self, uri: str, run_id: str, number: int = 0, resume: int | None = None) -> None:
        self.uri, self.run_id, self.number = uri, run_id, number
        self.committer = store.Committer(uri, run_id, 1)
        self.epoch = self.committer.register("p0", resume).epoch

    def block(self, number: int) -> store.Block:
        """The same one whenever it is asked for."""
        provenance = Provenance(self.run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
        game = random_episode(GAME, number, provenance, slot="p0", epoch=self.epoch, number=number)
        game = replace(game, started_at=17 * 10**14, wall_ms=1)
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
    assert planned == done and done.kept == (released,) and done.files > 100
    assert newest - 130 < done.oldest < newest
    assert trim_log(uri, 30, dry_run=False).files == 0
    for version in (released, done.oldest, newest):
        assert store.open(uri, version).version == version
    assert ids(store.open(uri, released), mine) == wanted[released]
    for version in (50, used):
        with pytest.raises(VersionGone, match="has no version"):
            store.open(uri, version)
    assert ids(*run_at(uri, "one", used)) == wanted[used], "what a learner began with is written down"
    with pytest.raises(UserError, match="no longer reaches back"):
        next(follow(uri, 10, until=0.0))
    assert len(list(follow(uri, done.oldest, ["episode_id"], until=0.0))) == newest - done.oldest

    assert not repair.is_damaged(uri) and not log.check(f"{uri}/episodes") and not repair.plan(uri).steps
    again = store.Committer(uri, "one", 1)  # of the same driver, that has died and been started again
    assert again.commit([one.block(one.number - 1)])[0].status == "already"
    assert counts.archived_by(store.open(uri), "one") == before
    maintenance.compact(uri)
    maintenance.vacuum(uri, hours=0, dry_run=False)
    assert ids(*run_at(uri, "one", used)) == wanted[used]
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
    maintenance.compact(uri)
    maintenance.vacuum(uri, hours=0, dry_run=False)
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
    monkeypatch.setattr(maintenance, "time", SimpleNamespace(time=lambda: time.time() - 9 * 86400, sleep=time.sleep))
    maintenance.delete_run(uri, "gone", "a test")
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


class Killed(BaseException):
    """What a test puts in the place of a process's end."""


def files_of(uri: str) -> set[str]:
    return {path.name for path in (Path(uri) / "episodes").glob("kind=*/*/*.parquet")}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Two runs, a release, a compaction; of what is forty days old, the newest entry is a checkpoint."""
    uri = str(tmp_path_factory.mktemp("template") / "corpus")
    one, two = Run(uri, "one"), Run(uri, "two")
    one.write(4)
    two.write(2)
    released = store.open(uri).version
    store.append(uri, "releases", [{"name": "first", "table_version": released}])
    one.write(4)
    maintenance.compact(uri)
    store.open(uri)._table.create_checkpoint()
    age(uri, 10**6, 40)
    one.write(2)
    return Path(uri), released


@pytest.fixture
def old_corpus(template: tuple[Path, int], tmp_path: Path) -> tuple[str, Run, int]:
    """A copy, its run that goes on, and the version that was released."""
    uri = str(shutil.copytree(template[0], tmp_path / "corpus"))
    return uri, Run(uri, "one", 10, resume=1000), template[1]


def test_interrupted_anywhere_nothing_is_lost_and_the_next_goes_on(
    old_corpus: tuple[str, Run, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, one, released = old_corpus
    everything, then = pc.scalar(True), store.open(uri, released)
    reader, before = store.open(uri, store.open(uri).version - 2), files_of(uri)
    wanted, pinned, of_then = ids(store.open(uri), everything), ids(then, everything), {*map(str, then.files())}
    assert is_due(uri, 30) and not is_due(uri, 60)
    planned, left = trim_log(uri, 30), 0

    def kill(at: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    monkeypatch.setattr(storage, "fault", kill)
    for killed_at in (1, 2, 3, 0):  # the data is gone, the history is written, an entry is gone; not at all
        left = killed_at
        if killed_at:
            with pytest.raises(Killed):
                trim_log(uri, 30, dry_run=False)
        else:
            trim_log(uri, 30, dry_run=False)
        assert ids(store.open(uri), everything) == wanted and ids(store.open(uri, released), everything) == pinned
        assert not repair.is_damaged(uri) and not log.check(f"{uri}/episodes") and not repair.plan(uri).steps
        assert store.Committer(uri, "one", 1).commit([one.block(one.number - 1)])[0].status == "already"
    assert planned.data_files == 4, "those that came after the release and were replaced"
    assert len(before - files_of(uri)) == 4 and {*map(str, store.open(uri, released).files())} == of_then
    assert len(ids(reader, everything)) == len(wanted) - 1, "of a reader whose version is young enough"
    assert trim_log(uri, 30, dry_run=False).files == 0
    one.write(1)
    assert store.open(uri).count() == len(wanted) + 1


def test_two_at_once_get_along(old_corpus: tuple[str, Run, int], monkeypatch: pytest.MonkeyPatch) -> None:
    uri, _, _ = old_corpus
    wanted, reading = ids(store.open(uri), pc.scalar(True)), log_trim._replaced
    other: list[int] = []

    def late(*asked: Any) -> list[storage.Entry]:
        if not other:
            other.append(1)
            assert trim_log(uri, 30, dry_run=False).files > 0
        return reading(*asked)

    monkeypatch.setattr(log_trim, "_replaced", late)
    assert trim_log(uri, 30, dry_run=False).files == 0 and other
    assert ids(store.open(uri), pc.scalar(True)) == wanted and not log.check(f"{uri}/episodes")


def test_files_that_were_never_committed_go_when_nobody_can_commit_them(old_corpus: tuple[str, Run, int]) -> None:
    uri, one, released = old_corpus
    everything, place = pc.scalar(True), Path(uri) / "episodes"
    wanted, pinned = ids(store.open(uri), everything), ids(store.open(uri, released), everything)
    for path in place.glob("kind=*/*/*.parquet"):
        os.utime(path, (time.time() - 50 * 86400,) * 2)
    lost, slow = one.block(100), one.block(101)
    os.utime(place / lost.path, (time.time() - 38 * 86400,) * 2)
    os.utime(place / slow.path, (time.time() - 36 * 86400,) * 2)
    assert delete_orphans(uri, 60) == (0, 0), "the log does not reach back so far"
    trim_log(uri, 30, dry_run=False)
    assert delete_orphans(uri, 30) == (1, lost.size)
    assert not (place / lost.path).exists() and (place / slow.path).exists()
    assert ids(store.open(uri), everything) == wanted and ids(store.open(uri, released), everything) == pinned


def test_a_path_that_leads_out_of_the_table_deletes_nothing(old_corpus: tuple[str, Run, int]) -> None:
    uri, _, _ = old_corpus
    treasure = Path(uri) / "treasure.parquet"
    treasure.write_bytes(b"mine")
    entry = Path(uri) / "episodes" / "_delta_log" / f"{5:020d}.json"
    remove = {"remove": {"path": "../treasure.parquet", "dataChange": False, "deletionTimestamp": 0}}
    entry.write_text(json.dumps({"commitInfo": {}}) + "\n" + json.dumps(remove))
    age(uri, 6, 40)
    with pytest.raises(UserError, match="not plainly inside"):
        trim_log(uri, 30, dry_run=False)
    assert treasure.exists()


def test_a_file_that_was_committed_again_stays_for_the_versions_that_have_it(tmp_path: Path) -> None:
    """Taken out before the oldest version that is kept, committed again since, and taken out once more."""
    uri = str(tmp_path)
    run, table = Run(uri, "one"), f"{uri}/episodes"
    Run(uri, "two").write(1)
    run.write(1)
    (file,) = (one for one in store.open(uri).files() if one["partition.run_id"] == "one")
    maintenance.delete_run(uri, "one", "test")
    open_table(table).create_checkpoint()
    oldest = store.open(uri).version
    age(uri, 10**6, 40)
    block = run.block(0)
    assert block.path == file["path"]
    again = AddAction(block.path, block.size, {"kind": "game", "run_id": "one"}, 1, True, block.stats)
    open_table(table).create_write_transaction([again], "append", open_table(table).schema(), ["kind", "run_id"])
    between = store.open(uri).version
    maintenance.delete_run(uri, "one", "test")
    done = trim_log(uri, 30, dry_run=False)
    assert done.oldest == oldest and done.files
    for version in range(oldest, store.open(uri).version + 1):
        assert len(ids(store.open(uri, version), pc.field("run_id") == "one")) == (version == between)
