"""The same through files: an honest corpus is true to both verifiers, and what was rewritten in it is false to both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

pytest.importorskip("torch")

from selfplay import store  # noqa: E402
from selfplay.episode.schema import EPISODES, PARTITION_BY  # noqa: E402
from selfplay.store import release  # noqa: E402
from selfplay.store.release import job  # noqa: E402
from selfplay.store.table.table import episodes_uri  # noqa: E402
from selfplay.store.table.write import write_file  # noqa: E402
from selfplay.store.verify.verify import verify_corpus  # noqa: E402
from tests.tampering.corpus import EPOCH, Honest, honest, sealed  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus() -> Honest:
    return honest()


def archive(uri: str, corpus: Honest) -> store.Corpus:
    """Commits the corpus, each writer's episodes in two blocks."""
    runs: dict[str, list[int]] = {}
    for i, episode in enumerate(corpus.episodes):
        runs.setdefault(episode.provenance.run_id, []).append(i)
    for run, mine in runs.items():
        slot = corpus.episodes[mine[0]].slot
        committer = store.Committer(uri, run, EPOCH // 1000)
        committer.register(slot)
        half, batch = len(mine) // 2, corpus.batch.slice(mine[0], len(mine))
        blocks = [store.write_block(uri, part, slot, EPOCH, n) for n, part in enumerate((batch[:half], batch[half:]))]
        committer.commit(blocks)
    for name, rows in corpus.tables.items():
        if rows:
            store.append(uri, name, rows)
    return store.open(uri)


def rewritten(uri: str, run: str, change: Any) -> None:
    """Commits other rows in the place of a run's: change is given the rows, and gives the new ones."""
    place, table = episodes_uri(uri), DeltaTable(episodes_uri(uri))
    mine = [file for file in store.open(uri).files() if file["partition.run_id"] == run]
    rows = store.open(uri).to_arrow().filter(pa.compute.field("run_id") == run).select(EPISODES.names).to_pylist()
    file = write_file(uri, sealed(change(rows)))
    values: dict[str, str | None] = {"kind": file.kind, "run_id": run}
    gone = [RemoveAction(one["path"], True, 0, one["size_bytes"], values) for one in mine]
    added = AddAction(file.path, file.size, values, 0, True, file.stats)
    table.create_write_transaction([*gone, added], "append", table.schema(), PARTITION_BY)
    assert DeltaTable(place).version() == table.version() + 1


def strangers(uri: str) -> tuple[int, dict[str, Any]]:
    """What the one-file verifier of the release says."""
    command = [sys.executable, "-I", f"{uri}/released/first/verify_corpus.py", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_what_is_honest_is_true_to_both(corpus: Honest, tmp_path: Path) -> None:
    opened = archive(str(tmp_path / "corpus"), corpus)
    checks = list(verify_corpus(opened))
    assert len(checks) == len(corpus.episodes)
    assert not [check for check in checks if check.state == "false"]
    assert not [check for check in checks if "run" in check.uncovered or "neighbours" in check.uncovered]
    release.release(opened, "first")
    code, told = strangers(str(tmp_path / "corpus"))
    assert code == 0 and not told["falsehoods"], told["falsehoods"]


def lost_games(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but those that the first seat has lost."""
    return [row for row in rows if row["returns"] is None or row["returns"][0] >= 0]


def doubled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One game more, like one that is there."""
    number = len(rows)
    return [*rows, {**rows[2], "number": number, "episode_id": f"{rows[2]['run_id']}/p0000/{EPOCH}/{number}"}]


@pytest.mark.parametrize(("change", "said"), [(lost_games, "missing"), (doubled, "again, under another name")])
def test_what_is_taken_away_or_doubled_is_false_to_both(
    corpus: Honest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    uri = str(tmp_path / "corpus")
    archive(uri, corpus)
    rewritten(uri, "gumbel", change)
    assert any(said in check.reason for check in verify_corpus(store.open(uri)))
    monkeypatch.setattr(job, "verified", lambda *_: job.Verified(0, 0, {}, None, None))  # a liar releases it
    release.release(store.open(uri), "first")
    code, told = strangers(uri)
    assert code == 1 and any(said in one["reason"] for one in told["falsehoods"])
