"""Every golden corpus, one a schema version, is read, checked, asked and fed by what is here today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfplay import store
from selfplay.episode import from_batch, to_batch
from selfplay.episode.schema import SCHEMA_VERSION
from selfplay.store.corpus.query import query
from selfplay.store.verify.verify import verify_corpus

HERE = Path(__file__).parent
VERSIONS = sorted(HERE.glob("corpus_v*"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy: a reader writes nothing, but a test should not have to trust that."""
    return Path(shutil.copytree(request.param, tmp_path / "corpus"))


def test_there_is_one_for_the_present_version() -> None:
    assert HERE / f"corpus_v{SCHEMA_VERSION}" in VERSIONS


def test_it_is_read_to_the_last_episode(golden: Path) -> None:
    corpus = store.open(str(golden))
    digests = json.loads((golden / "digests.json").read_text())
    rows = corpus.to_arrow()
    stored = dict(zip(rows["episode_id"].to_pylist(), rows["content_digest"].to_pylist(), strict=True))
    assert stored == digests
    episodes = from_batch(rows)
    assert {episode.kind for episode in episodes} == {"game", "reasoning", "control"}
    sealed = to_batch(episodes)  # what is read is what was sealed, to the digest
    assert dict(zip(stored, sealed.column("content_digest").to_pylist(), strict=True)) == digests


def test_nothing_in_it_is_false_and_its_games_are_checkable(golden: Path) -> None:
    corpus = store.open(str(golden))
    checks = {check.subject: check for check in verify_corpus(corpus)}
    assert not [check for check in checks.values() if check.state == "false"]
    kinds = dict(corpus.to_duckdb().sql("select episode_id, kind from episodes").fetchall())
    assert {kinds[name] for name, check in checks.items() if check.state == "true"} >= {"game"}
    assert all(check.state == "true" for name, check in checks.items() if kinds[name] == "game")


def test_it_is_asked_and_fed(golden: Path) -> None:
    corpus = store.open(str(golden))
    _, rows = query(corpus, "select kind, count(*) from episodes group by 1 order by 1")
    assert [kind for kind, _ in rows] == ["control", "game", "reasoning"]
    _, judged = query(corpus, "select state, reward from verdicts order by 1")
    assert judged == [("accepted", 1.0), ("unverifiable", None)]
    assert sum(len(batch["z"]) for batch in corpus.to_torch(batch=16)) > 20
    assert sum(len(batch["reward"]) for batch in corpus.to_torch(kind="reasoning")) == 1
