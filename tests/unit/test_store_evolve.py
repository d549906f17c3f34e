"""A newer version adds fields to a corpus that older ones still read, write and keep."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest
from deltalake import write_deltalake

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, Provenance, random_episode, to_batch
from selfplay.episode.schema import EPISODES, GAME, SCHEMA_VERSION, STEP
from selfplay.errors import UserError
from selfplay.store.table import table
from selfplay.store.table.maintenance import compact
from selfplay.store.table.table import open_table, stated_version
from selfplay.store.verify.verify import verify_corpus

GAME_ = pyspiel.load_game("tic_tac_toe")
SPEC = registry.find("tic_tac_toe")
#: What a newer version might write: one nested field more, and one column more.
NEWER_STEP = pa.struct([*STEP, pa.field("clock", pa.float32())])
NEWER_GAME = pa.struct([*[f for f in GAME if f.name != "steps"], pa.field("steps", pa.list_(NEWER_STEP))])
NEWER = pa.schema([*[f if f.name != "game" else pa.field("game", NEWER_GAME) for f in EPISODES], ("mood", pa.string())])


def episodes(run_id: str, epoch: int, first: int, count: int = 3) -> list[Episode]:
    provenance = Provenance(run_id, SPEC.id, 0, ruleset_digest(SPEC), "b" * 64, "0.1.0", "here", "CC0-1.0")
    numbers = range(first, first + count)
    played = [random_episode(GAME_, n, provenance, slot="a", epoch=epoch, number=n) for n in numbers]
    began = 17 * 10**14 + 10**9 * epoch + 10**6 * len(run_id)  # sealed again, they are the same
    return [dataclasses.replace(one, started_at=began + one.number, wall_ms=1) for one in played]


def newer_rows(epoch: int) -> pa.Table:
    """Rows of a newer version: the fields that only it knows are not null."""
    rows = to_batch(episodes("newer", epoch, 0)).to_pylist()
    for row in rows:
        row["schema_version"], row["mood"] = SCHEMA_VERSION + 1, "calm"
        for step in row["game"]["steps"]:
            step["clock"] = 1.5
    return pa.Table.from_pylist(rows, NEWER)


@pytest.fixture
def evolved(tmp_path: Path) -> tuple[str, store.Committer]:
    """A corpus with a block of ours, then one of a newer version; and our committer, still open."""
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "ours", 1)
    epoch = committer.register("a").epoch
    committer.commit([store.write_block(uri, to_batch(episodes("ours", epoch, 0)), "a", epoch, 0)])
    write_deltalake(f"{uri}/episodes", newer_rows(1000), mode="append", schema_mode="merge")
    return uri, committer


def test_an_older_writer_goes_on(evolved: tuple[str, store.Committer]) -> None:
    uri, committer = evolved
    committer.commit([store.write_block(uri, to_batch(episodes("ours", 1000, 0, 6)).slice(3), "a", 1000, 1)])
    fresh = store.Committer(uri, "another", 1)
    epoch = fresh.register("a").epoch
    fresh.commit([store.write_block(uri, to_batch(episodes("another", epoch, 0)), "a", epoch, 0)])
    corpus = store.open(uri)
    assert corpus.count() == 12 and len({episode.episode_id for episode in corpus.records()}) == 12
    assert corpus.to_duckdb().sql("select count(*) from steps").fetchall()[0][0] > 60
    checks = list(verify_corpus(corpus))
    states = {check.subject: check for check in checks}
    assert len(states) == len(checks) == 12
    for name, check in states.items():
        assert check.state == ("not checkable" if name.startswith("newer/") else "true"), check
    assert states["newer/a/1000/0"].reason == "it has a newer schema: update this package"


def test_an_older_compactor_keeps_what_it_does_not_know(evolved: tuple[str, store.Committer]) -> None:
    uri, committer = evolved
    write_deltalake(f"{uri}/episodes", newer_rows(2000), mode="append", schema_mode="merge")
    committer.commit([store.write_block(uri, to_batch(episodes("ours", 1000, 0, 6)).slice(3), "a", 1000, 1)])
    before = store.open(uri).to_arrow().sort_by("episode_id")
    done = compact(uri)
    assert done.files_after == 2
    after = store.open(uri).to_arrow().sort_by("episode_id")
    assert after.equals(before)
    newer = [row for row in after.to_pylist() if row["run_id"] == "newer"]
    assert {row["mood"] for row in newer} == {"calm"}
    assert {step["clock"] for row in newer for step in row["game"]["steps"]} == {1.5}


def test_a_table_of_version_1_is_raised_by_who_writes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = Path(__file__).parents[1] / "golden" / "corpus_v1"
    uri = str(shutil.copytree(golden, tmp_path / "corpus"))
    before = store.open(uri)
    assert stated_version(open_table(f"{uri}/episodes")) == 1 and before.count() == 20
    assert before.to_arrow(columns=["previous_digest"])["previous_digest"].null_count == 20, "read as null"
    writer = store.Writer(uri, "a", store.Committer(uri, "ours", 1).register("a").epoch)
    committer = store.Committer(uri, "ours", 1)
    for first in (0, 3):
        committer.commit([writer.write(episodes("ours", writer.epoch, first))[0]])
    assert stated_version(open_table(f"{uri}/episodes")) == SCHEMA_VERSION
    rows = store.open(uri).to_arrow().sort_by("episode_id")
    assert rows.filter(pc.field("run_id") == "golden").equals(before.to_arrow().sort_by("episode_id"))
    assert rows["previous_digest"].null_count == 21
    assert not [check for check in verify_corpus(store.open(uri)) if check.state == "false"]
    assert not [check for check in verify_corpus(store.open(uri, before.version)) if check.state == "false"]
    compact(uri)
    assert store.open(uri).to_arrow().sort_by("episode_id").equals(rows)
    monkeypatch.setattr(table, "SCHEMA_VERSION", 1)  # a version of this package from before
    with pytest.raises(UserError, match="has schema version 2, and this version of the package knows 1; update"):
        store.open(uri)
