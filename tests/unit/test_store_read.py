"""Reading: streaming, by id, the newest of a run, versions, and bad input in one sentence."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest

from selfplay import store
from selfplay.episode import Episode, Provenance, from_batch, random_episode, to_batch
from selfplay.errors import UserError

PROVENANCE = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")


@pytest.fixture(scope="module")
def corpus_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten blocks of ten episodes of two slots, sealed a second apart, alternately."""
    uri = str(tmp_path_factory.mktemp("run") / "corpus")
    committer = store.Committer(uri, "run", 1)
    game = pyspiel.load_game("tic_tac_toe")
    epochs = {slot: committer.register(slot).epoch for slot in ("a", "b")}
    writers = {slot: store.Writer(uri, slot, epoch) for slot, epoch in epochs.items()}
    for number in range(5):
        blocks = []
        for place, slot in enumerate(epochs):
            episodes: list[Episode] = []
            for n in range(number * 10, number * 10 + 10):
                episode = random_episode(game, n, PROVENANCE, slot=slot, epoch=epochs[slot], number=n)
                when = (2 * n + place) * 1_000_000
                episodes.append(dataclasses.replace(episode, started_at=when, wall_ms=0, trainable=n % 10 != 9))
            blocks.append(writers[slot].write(episodes)[0])
        committer.commit(blocks)
    return uri


def test_streaming_with_a_filter_and_columns(corpus_uri: str) -> None:
    corpus = store.open(corpus_uri)
    assert corpus.count() == 100 and sum(b.num_rows for b in corpus.episodes()) == 100
    where = (pc.field("slot") == "b") & (pc.field("number") >= 45)
    batches = list(corpus.episodes(where, ["episode_id", "number"]))
    assert sorted(n for b in batches for n in b.column("number").to_pylist()) == [45, 46, 47, 48, 49]
    assert batches[0].schema.names == ["episode_id", "number"]
    assert corpus.count(where) == 5


def test_what_is_read_is_what_was_written(corpus_uri: str) -> None:
    table = store.open(corpus_uri).to_arrow()
    assert to_batch(from_batch(table)).column("content_digest").to_pylist() == table["content_digest"].to_pylist()


def test_a_filter_on_any_column_finds_what_is_there(corpus_uri: str) -> None:
    corpus = store.open(corpus_uri)
    rows = corpus.to_arrow()
    for field in rows.schema:
        value, nulls = rows.column(field.name)[0], rows.column(field.name).null_count
        if not value.is_valid:
            assert corpus.count(pc.field(field.name).is_null()) == nulls, field.name
        elif not pa.types.is_nested(field.type):
            assert corpus.count(pc.field(field.name) == value) >= 1, field.name
            assert corpus.count(pc.field(field.name).is_valid()) == 100 - nulls, field.name
    assert corpus.count(pc.field("game", "ended_by") == "terminal") == 100


def test_one_episode_by_its_id(corpus_uri: str) -> None:
    corpus = store.open(corpus_uri)
    assert corpus.get("run/b/1000/7").number == 7
    with pytest.raises(UserError, match="not in"):
        corpus.get("run/b/1000/700")
    with pytest.raises(UserError, match="run_id/slot/epoch/number"):
        corpus.get("seven")
    assert corpus.newest(2) == ["run/b/1000/49", "run/a/1000/49"]


def test_the_latest_of_a_run_refill_a_window(corpus_uri: str) -> None:
    corpus = store.open(corpus_uri)
    run, trainable = pc.field("run_id") == "run", pc.field("trainable")
    everything = corpus.latest(run & trainable, 10**9)
    assert everything.num_rows == 90 and all(everything["trainable"].to_pylist())
    some = corpus.latest(run & trainable, 100)
    steps = some["n_steps"].to_pylist()
    assert sum(steps) >= 100 > sum(steps[1:]), "just enough"
    assert some["episode_id"].to_pylist() == everything["episode_id"].to_pylist()[-some.num_rows :]
    times = some["started_at"].to_pylist()
    assert times == sorted(times)
    assert corpus.latest(pc.field("run_id") == "other", 100).num_rows == 0
    assert corpus.latest(run, 10**9).num_rows == 100
    assert [e.episode_id for e in from_batch(some)] == some["episode_id"].to_pylist()


def test_versions(corpus_uri: str) -> None:
    newest = store.open(corpus_uri).version
    assert store.open(corpus_uri, newest - 1).count() == 80
    with pytest.raises(UserError, match=f"no version 77 .* newest is {newest}"):
        store.open(corpus_uri, 77)


def test_the_run_folder_will_do(corpus_uri: str) -> None:
    assert store.open(str(Path(corpus_uri).parent)).uri == corpus_uri


def test_a_path_that_is_no_corpus_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no corpus at"):
        store.open(str(tmp_path))
    assert list(tmp_path.iterdir()) == [], "nothing changed"


def test_files_outside_the_log_are_not_read(corpus_uri: str) -> None:
    stray = to_batch([random_episode(pyspiel.load_game("tic_tac_toe"), 1, PROVENANCE, slot="stray")])
    store.write_block(corpus_uri, stray, "stray", 0, 0)
    assert store.open(corpus_uri).count(pc.field("slot") == "stray") == 0


def test_reading_imports_neither_torch_nor_ray_nor_numba(corpus_uri: str) -> None:
    code = (
        "import sys; from selfplay import store; c = store.open(sys.argv[1]); n = sum(1 for _ in c.records());"
        "import selfplay.store.verify.verify;"
        "print(n, sorted({'torch', 'ray', 'numba', 'gymnasium', 'trainers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, corpus_uri], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "100 []"


def test_arrow_reads_through_a_filesystem_without_python(corpus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that still reads ahead in Python while the interpreter ends aborts the process (one time in three)."""
    from pyarrow.fs import LocalFileSystem, PyFileSystem, S3FileSystem

    from selfplay.io import storage

    inner = store.open(corpus_uri).dataset.filesystem.base_fs
    assert isinstance(inner, LocalFileSystem) and not isinstance(inner, PyFileSystem)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert isinstance(storage.arrow_filesystem("s3://bucket/corpus").base_fs, S3FileSystem)
