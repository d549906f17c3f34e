"""A year of a thousand actors in miniature: what a run leaves behind does not grow with its age, beside its episodes.

Every "week" brings as many blocks and versions, and ends as a run and its operator end it: small files made few, what
they replaced given back, the log shortened, claims forgotten. Bounds hold for the last week as for the first.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyspiel
import pytest

from selfplay import run_files, store
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.nets import weights
from selfplay.store import counts, log_trim, side_tables, upkeep
from selfplay.store.counts import archived_by
from trainers.recipe import load_recipe
from trainers.run_folder import RunFolder
from trainers.run_state import State

GAME = pyspiel.load_game("tic_tac_toe")
WEEKS, BLOCKS, VERSIONS = 6, 40, 10


def files(place: Path, pattern: str) -> int:
    return len(list(place.glob(pattern)))


@pytest.mark.slow
def test_a_year_of_a_thousand_actors_in_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = tmp_path / "run", load_recipe("tic_tac_toe")
    uri, number, version, rows = str(run / "corpus"), 0, 0, []
    tensors = {"a": np.zeros(1, np.float32)}
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    for week in range(WEEKS):
        with store.acquire(str(run), "a driver") as lease:  # a restart a week
            folder = RunFolder(str(run), config, State, lease)
            if week == 0:
                folder.begin("{}")
            began = time.perf_counter()
            committer = store.Committer(uri, "run", lease.epoch)
            with monkeypatch.context() as reading:
                reading.setattr(store.Corpus, "episodes", None)  # a restart reads no episode
                assert archived_by(store.open(uri), "run").episodes == number
            restart = time.perf_counter() - began
            epoch = committer.register("p0").epoch
            for block in range(BLOCKS):
                game = random_episode(GAME, number, provenance, slot="p0", epoch=epoch, number=block)
                committer.commit([store.write_block(uri, to_batch([game]), "p0", epoch, block)])
                number += 1
            for _ in range(VERSIONS):
                version = folder.state.version = weights.save_version(str(run), version + 1, tensors, {})
                os.utime(run_files.claim_uri(str(run), version), (1e9 + 600 * version,) * 2)
                store.append(uri, "policies", [{"policy_id": "run", "version": version, "digest": "d"}])
                store.append(uri, "uses", [{"run_id": "run", "version_out": version, "digest_out": "d", "events": []}])
            upkeep.compact(uri)
            upkeep.vacuum(uri, hours=0, dry_run=False)
            side_tables.give_back(uri, hours=0)
            store.open(uri)._table.create_checkpoint()
            log_trim.trim_log(uri, days=0, dry_run=False)
            folder.save()
            folder.forget_old()
        log = run / "corpus" / "episodes" / "_delta_log"
        rows.append(
            {
                "data files": files(run / "corpus" / "episodes", "kind=*/*/*.parquet"),
                "side files": files(run / "corpus", "policies/*.parquet") + files(run / "corpus", "uses/*.parquet"),
                "log files": files(log, "*"),
                "log bytes": sum(path.stat().st_size for path in log.iterdir()),
                "claims": files(run / "weights", "*.claim"),
                "weights": files(run / "weights", "*.safetensors"),
                "states": files(run / "state", "*"),
            }
        )
        print(week, f"restart {restart:.2f} s", rows[-1])
    last = rows[-1]
    assert last["data files"] == 1 and last["side files"] == 2
    assert last["log files"] <= 4 + BLOCKS and last["log bytes"] <= 2 * rows[1]["log bytes"]
    assert last["claims"] <= 8 and last["states"] <= 2
    assert last["weights"] <= config.run.keep_checkpoints + version // config.run.keep_every + 1
    assert counts.archived_by(store.open(uri), "run").episodes == store.open(uri).count() == WEEKS * BLOCKS
    assert sorted(store.open(uri).table("policies")["version"].to_pylist()) == list(range(1, version + 1))
