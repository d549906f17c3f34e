"""Whole runs as a person starts them: what they leave behind, and what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay import store
from selfplay.agent import Agent
from selfplay.nets import weights

Start = Callable[..., Any]
Sound = Callable[..., pa.Table]

#: What Ray, RLlib, wandb and Python itself print where nobody stops them.
FOREIGN = re.compile(r"raylet|ray::|core_worker|gcs_server|\(pid=|INFO |WARN|rllib|wandb|Traceback|Error\b", re.I)


def test_a_whole_run(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "runs" / "ttt"
    driver = start("tic_tac_toe", "--out", out, "--set=run.positions=3000", "--json", *quick)
    assert driver.wait() == 0, driver.told
    assert not FOREIGN.search(driver.told)

    summary = driver.summary()
    rows = sound(out)
    assert summary["ended_by"] == "time" and summary["status"]["positions"] >= 3000
    assert summary["status"]["episodes"] == rows.num_rows > 0
    version = summary["status"]["version"]
    assert version >= 1, "nothing was learned"
    assert summary["status"]["lost"] == {"count": 0, "plies": 0}

    corpus = store.open(str(out))
    assert set(rows["env_id"].to_pylist()) == {"tic_tac_toe-v0"}
    assert set(rows["status"].to_pylist()) <= {"ok", "aborted"}
    aborted = [row for row in rows.select(["status", "trainable"]).to_pylist() if row["status"] == "aborted"]
    assert not any(row["trainable"] for row in aborted)
    assert corpus.table("runs").num_rows == corpus.table("environments").num_rows == 1
    (closing,) = corpus.table("closings").to_pylist()
    assert (closing["how"], closing["episodes"], closing["lost"]) == ("finished", rows.num_rows, 0)
    assert closing["aborted"] == len(aborted) == sum(one["aborted"] for one in closing["writers"])
    policies = {row["version"]: row["digest"] for row in corpus.table("policies").to_pylist()}
    assert sorted(policies) == list(range(version + 1))
    tensors, meta = weights.load(str(out / "weights" / f"{version:06d}.safetensors"))
    assert weights.digest(tensors) == meta["digest"] == policies[version]
    assert json.loads((out / "config.json").read_text())["selfplay"]["games"] == 16
    assert list((out / "tensorboard").iterdir()) and (out / "wandb_id").read_text()

    agent = Agent.load(str(out))
    assert agent.version == version
    state = agent.game.new_initial_state()
    while not state.is_terminal():
        action = agent.act(state, simulations=8)
        assert action in state.legal_actions()
        state.apply_action(action)
    policy, value = agent.evaluate(agent.game.new_initial_state())
    assert abs(policy.sum() - 1) < 1e-4 and -1 <= value <= 1


@pytest.mark.slow
def test_many_runs_share_a_corpus(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    corpus = tmp_path / "corpus"
    shared = [f"--set=run.corpus={corpus}", "--set=run.positions=2000", "--json"]
    drivers = [
        start("tic_tac_toe", "--out", tmp_path / name, *quick, *shared, f"--set=seed={seed}")
        for seed, name in enumerate(("one", "two"))
    ]
    assert [driver.wait() for driver in drivers] == [0, 0], [driver.told for driver in drivers]
    rows = sound(corpus)
    runs = set(rows["run_id"].to_pylist())
    assert len(runs) == 2 and sum(driver.summary()["status"]["episodes"] for driver in drivers) == rows.num_rows
    assert sound(tmp_path / "one").num_rows == rows.num_rows  # the run's folder leads to it
    assert not (tmp_path / "one" / "corpus").exists()
    elsewhere = start("tic_tac_toe", "--out", tmp_path / "one", *quick, "--set=run.corpus=other", "--json")
    assert elsewhere.wait() == 2 and "run.corpus" in elsewhere.told
    again = start("--out", tmp_path / "one", "--set=run.positions=3000", "--json")
    assert again.wait() == 0, again.told
    assert sound(corpus).num_rows > rows.num_rows
