"""Compaction, deletion, vacuum; and what versions differ in, and news that come once, across all three."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table import log, maintenance
from selfplay.store.table.changes import difference, follow, run_at
from selfplay.store.table.snapshot import VersionGone
from selfplay.store.table.table import append
from selfplay.store.verify.verify import verify_corpus

GAME = pyspiel.load_game("tic_tac_toe")
runner = CliRunner()


class Writer:
    """A run that archives blocks of five games."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id
        self.committer = store.Committer(uri, run_id, 1)
        self.epoch = self.committer.register("a").epoch
        self.writer, self.blocks = store.Writer(uri, "a", self.epoch), 0

    def write(self, blocks: int = 1) -> set[str]:
        ids = set()
        for _ in range(blocks):
            provenance = Provenance(self.run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
            numbers = range(5 * self.blocks, 5 * self.blocks + 5)
            episodes = [random_episode(GAME, n, provenance, slot="a", epoch=self.epoch, number=n) for n in numbers]
            self.committer.commit([self.writer.write(episodes)[0]])
            self.blocks += 1
            ids |= {e.episode_id for e in episodes}
        return ids


def ids(uri: str, version: int | None = None) -> list[str]:
    return sorted(store.open(uri, version).to_arrow(columns=["episode_id"])["episode_id"].to_pylist())


def news(uri: str, after: int) -> list[str]:
    found = follow(uri, after, ["episode_id"], until=0.0)
    return [episode_id for item in found for episode_id in item.episodes["episode_id"].to_pylist()]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "corpus")


def test_compaction_changes_files_and_no_episode(uri: str) -> None:
    one, two = Writer(uri, "one"), Writer(uri, "two")
    made = one.write(6) | two.write(4)
    before = store.open(uri)
    done = maintenance.compact(uri)
    assert (done.files_before, done.files_after) == (10, 2)
    after = store.open(uri)
    assert after.version > before.version and ids(uri) == sorted(made)
    digests = ["episode_id", "content_digest"]
    assert after.to_arrow(columns=digests).sort_by("episode_id") == before.to_arrow(columns=digests).sort_by(
        "episode_id"
    )
    assert not [check for check in verify_corpus(after) if check.state == "false"]
    assert before.count(pc.field("number") == 3) == after.count(pc.field("number") == 3) == 2  # statistics still hold
    assert difference(uri, before.version, after.version).added == ()
    assert maintenance.compact(uri).version == after.version, "there was nothing to do"
    made |= one.write()  # the writer goes on, and its counters with it
    assert ids(uri) == sorted(made)


def test_writers_readers_and_compaction_side_by_side(uri: str) -> None:
    Writer(uri, "run-0").write()
    made: list[set[str]] = [set(ids(uri))]
    failures: list[BaseException] = []
    ended = threading.Event()

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

        return threading.Thread(target=run)

    def compacting() -> None:
        while not ended.is_set():
            maintenance.compact(uri)

    def reading() -> None:
        while not ended.is_set():
            corpus = store.open(uri)
            found = corpus.to_arrow(columns=["episode_id"])["episode_id"].to_pylist()
            assert len(found) == len(set(found)) == corpus.count(), "one version, whole"

    writers = [guarded(lambda n=n: made.append(Writer(uri, f"run-{n}").write(15))) for n in (1, 2)]
    others = [guarded(compacting), guarded(compacting), guarded(reading)]
    for thread in writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in others:
        thread.join()
    assert not failures, failures
    assert ids(uri) == sorted(set.union(*made))


def test_difference_names_what_came_and_went(uri: str) -> None:
    one = Writer(uri, "one")
    first = one.write(2)
    before = store.open(uri).version
    later = one.write(2)
    maintenance.compact(uri)
    middle = store.open(uri).version
    assert set(difference(uri, before, middle).added) == later and not difference(uri, before, middle).removed
    done = maintenance.delete_run(uri, "one", "to see it go")
    assert done.episodes == 20 and ids(uri) == []
    assert set(difference(uri, middle, done.version).removed) == first | later
    with pytest.raises(UserError, match="has no run one"):
        maintenance.delete_run(uri, "one", "again")
    assert ids(uri, middle) == sorted(first | later), "older versions keep it"
    told = runner.invoke(app, ["diff", str(before), str(middle), uri, "--json"])
    assert set(json.loads(told.stdout)["added"]) == later


def test_news_come_once_whatever_happened_to_the_files(uri: str) -> None:
    one = Writer(uri, "one")
    start = store.open(uri).version
    first = one.write(3)
    assert sorted(news(uri, start)) == sorted(first)
    mark = store.open(uri).version
    maintenance.compact(uri)
    assert news(uri, mark) == []
    later = one.write(2)
    assert sorted(news(uri, mark)) == sorted(later)
    maintenance.compact(uri)
    maintenance.vacuum(uri, 0, dry_run=False)  # the blocks' own files are gone now
    assert sorted(news(uri, start)) == sorted(first | later)
    assert sorted(news(uri, mark)) == sorted(later)
    assert sorted(news(uri, -1)) == sorted(first | later)
    maintenance.delete_run(uri, "one", "gone")
    assert news(uri, -1) == []


def test_news_are_told_as_they_come(uri: str) -> None:
    one = Writer(uri, "one")
    seen: list[str] = []

    def listen() -> None:
        until = time.monotonic() + 60
        for item in follow(uri, 0, ["episode_id"], poll_s=0.05, until=until):
            seen.extend(item.episodes["episode_id"].to_pylist())
            if len(seen) >= 20:
                return

    listener = threading.Thread(target=listen)
    listener.start()
    made = one.write(2)
    maintenance.compact(uri)
    made |= one.write(2)
    listener.join()
    assert sorted(seen) == sorted(made)


def test_what_a_run_had_can_be_told_after_a_vacuum(uri: str) -> None:
    one, other = Writer(uri, "one"), Writer(uri, "two")
    nothing = store.open(uri).version
    first = one.write(2) | set()
    other.write()
    maintenance.compact(uri)
    first |= one.write()
    version = store.open(uri).version
    heir = one.committer.register("b")
    provenance = Provenance("one", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    episode = random_episode(GAME, 99, provenance, slot="b", epoch=heir.epoch, number=0)
    one.committer.commit([store.write_block(uri, to_batch([episode]), "b", heir.epoch, 0)])
    one.write(2)

    def had(at: int) -> set[str]:
        corpus, which = run_at(uri, "one", at)
        return set(corpus.to_arrow(which, ["episode_id"])["episode_id"].to_pylist())

    assert had(version) == first
    maintenance.compact(uri)
    assert had(version) == first
    maintenance.vacuum(uri, 0, dry_run=False)
    with pytest.raises(VersionGone):
        store.open(uri, version)
    assert had(version) == first and had(nothing) == set()
    assert len(had(store.open(uri).version)) == 26
    maintenance.delete_run(uri, "one", "gone")
    maintenance.vacuum(uri, 0, dry_run=False)
    assert had(version) == set()


def test_the_latest_come_in_the_same_order_after_compaction(uri: str) -> None:
    """Also where two were sealed in the same moment."""
    committer = store.Committer(uri, "one", 1)
    provenance = Provenance("one", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    for slot in ("b", "a"):
        epoch = committer.register(slot).epoch
        played = [random_episode(GAME, n, provenance, slot=slot, epoch=epoch, number=n) for n in range(3)]
        batch = to_batch(played)
        for name, value in (("started_at", datetime(2026, 1, 1, tzinfo=UTC)), ("wall_ms", 1)):
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), pa.array([value] * 3, batch.schema.field(at).type))
        committer.commit([store.write_block(uri, batch, slot, epoch, 0)])

    def latest() -> list[str]:
        rows = store.open(uri).latest(pc.field("run_id") == "one", 10**6)
        return list(rows["episode_id"].to_pylist())

    before = latest()
    maintenance.compact(uri)
    assert latest() == before and before[0].split("/")[1] == "a"


def test_vacuum_says_what_it_ends_and_keeps_releases_and_the_young(uri: str) -> None:
    one = Writer(uri, "one")
    made = one.write(3)
    released = store.open(uri).version
    made |= one.write(3)
    unreleased = store.open(uri).version
    maintenance.compact(uri)
    store.append(uri, "releases", [{"name": "first", "table_version": released}])
    torn = storage.join(uri, "episodes", "kind=game", "run_id=one", f"{'0' * 64}.parquet")
    storage.write(torn, b"never committed")
    assert maintenance.vacuum(uri, 24).files == (), "all of it is young"
    found = maintenance.vacuum(uri, 0)
    assert len(found.files) == 3 and found.kept == 1
    assert all(storage.exists(storage.join(uri, "episodes", file)) for file in found.files), "a dry run deletes nothing"
    assert found.oldest > unreleased
    told = runner.invoke(app, ["vacuum", uri, "--hours", "0", "--yes"])
    assert told.exit_code == 0 and f"versions before {found.oldest} end" in told.stdout
    assert storage.exists(torn) and not maintenance.vacuum(uri, 0).files
    os.utime(torn, (time.time() - 8 * 24 * 3600,) * 2)
    assert len(maintenance.vacuum(uri, 0).files) == 1, "after a week nobody comes to commit it"
    assert ids(uri) == sorted(made)
    assert len(ids(uri, released)) == 15, "a release can still be read"
    with pytest.raises(UserError, match=f"version {unreleased} of .* was vacuumed: 3 of its files are gone"):
        store.open(uri, unreleased)
    with pytest.raises(UserError, match="was vacuumed"):
        difference(uri, unreleased, store.open(uri).version)
    made |= one.write()
    assert ids(uri) == sorted(made)


def test_vacuum_spares_what_a_living_writer_may_commit(uri: str) -> None:
    one = Writer(uri, "one")
    made = one.write(2)
    provenance = Provenance("one", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")

    def written(slot: str, epoch: int, seed: int) -> store.Block:
        played = [random_episode(GAME, seed, provenance, slot=slot, epoch=epoch, number=0)]
        return store.write_block(uri, to_batch(played), slot, epoch, 0)

    dead = written("a", one.epoch - 1, seed=1)  # its slot has gone to another writer since, that has committed
    slow = written("b", one.committer.register("b").epoch, seed=2)
    done = maintenance.vacuum(uri, 0, dry_run=False)
    assert (done.files, done.kept) == ((dead.path,), 1)
    (receipt,) = one.committer.commit([slow])
    assert receipt.status == "committed" and len(ids(uri)) == len(made) + 1
    orphan = written("b", one.epoch, seed=3)
    store.Committer(uri, "one", 2)  # another driver has taken over
    assert maintenance.vacuum(uri, 0, dry_run=False).files == (orphan.path,)


def test_vacuum_spares_what_a_compactor_has_written(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Writer(uri, "one")
    made = one.write(3)
    store.Committer(uri, "one", 2)
    seen = []

    def meanwhile(point: str) -> None:
        if point == "before_rewrite":
            seen.append(maintenance.vacuum(uri, 0, dry_run=False))

    monkeypatch.setattr(storage, "fault", meanwhile)
    maintenance.compact(uri)
    assert [(found.files, found.kept) for found in seen] == [((), 1)]
    assert ids(uri) == sorted(made) and not [c for c in verify_corpus(store.open(uri)) if c.state == "false"]


def test_an_entry_of_upkeep_that_ends_between_two_lines_is_found(tmp_path: Path) -> None:
    uri = str(tmp_path)
    Writer(uri, "r").write(3)
    for version in range(3):
        append(uri, "policies", [{"policy_id": "r", "version": version, "digest": "d"}])
    maintenance.compact(uri)
    maintenance.delete_run(uri, "r", "a test")
    cut = 0
    for name in ("episodes", "policies"):
        table = storage.join(uri, name)
        assert not log.check(table)
        for file in sorted(Path(table, log.FOLDER).glob("*.json"))[1:]:
            whole = file.read_text()
            lines = whole.splitlines(keepends=True)
            if '"remove"' not in whole:
                continue
            for end in range(1, len(lines)):
                file.write_text("".join(lines[:end]))
                assert [(fault.file, fault.what) for fault in log.check(table)] == [(file.name, "breaks off")]
            file.write_text(whole)
            cut += 1
    assert cut == 3, "two compactions and a deletion"


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        ("", "", ""),
        ("compact", "", ""),
        ("", "vacuum", "compact"),
        ("compact", "compact", "compact, vacuum"),
        ("compact", "vacuum", ""),
    ],
)
def test_what_was_deleted_is_never_told_again(uri: str, before: str, between: str, after: str) -> None:
    """Also where the run goes on, and whatever upkeep was done before the deletion, after it, and since."""

    def upkept(steps: str) -> None:
        if "compact" in steps:
            maintenance.compact(uri)
        if "vacuum" in steps:
            maintenance.vacuum(uri, hours=0, dry_run=False)

    run, other = Writer(uri, "one"), Writer(uri, "two")
    run.write(2)
    kept = other.write(2)
    upkept(before)
    maintenance.delete_run(uri, "one", "test")
    assert sorted(news(uri, 0)) == sorted(kept)
    upkept(between)
    kept |= run.write(2) | other.write(1)
    upkept(after)
    assert sorted(news(uri, 0)) == sorted(kept) == ids(uri)
