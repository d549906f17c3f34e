"""What the trajectory store costs, as ratios of what cannot be avoided; every pair is measured in one run.

    python tests/benchmarks/bench_store.py                     writing, size, feeding
    python tests/benchmarks/bench_store.py --games 1000000     besides: a corpus of so many games, asked and verified
    python tests/benchmarks/bench_store.py --run runs/x        size and feeding of a real run instead of made-up games
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfplay import store
from selfplay.cli.corpus.stats import count
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Provenance, content_digests, to_batch
from selfplay.episode.schema import EPISODES
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.table import maintenance
from selfplay.store.verify.verify import verify_corpus

SPEC = registry.find("connect_four")
GAME = load(SPEC)
CONFIG = {
    "search": {"algorithm": "gumbel", "c_visit": 50.0, "c_scale": 0.5},
    "learner": {"z_weight": 0.25, "q_weight": 0.75},
    "selfplay": {"truncated_value_weight": 0.5},
}


def games(count: int, run_id: str = "bench") -> pa.RecordBatch:
    """Connect-four games of a search with 16 simulations on a made-up net."""
    provenance = Provenance(
        run_id, SPEC.id, SPEC.version, ruleset_digest(SPEC), "b" * 64, "0.1.0", "here", "CC0-1.0", "c" * 40
    )
    settings = PlaySettings(slots=64, simulations=16, cache_entries=100_000)
    net = HashNet(GAME.num_actions, value_range=1.0)
    one = Generator(GAME, net, SearchConfig(), settings, provenance, "p0", 1000, 0, np.random.default_rng(0))
    one.set_policy(Policy(run_id, 1, "d" * 64))
    return to_batch(one.play(lambda sealed, _: sealed >= count)[:count])


def again(batch: pa.RecordBatch, run_id: str, first: int) -> pa.RecordBatch:
    """The same games under other names, sealed anew."""
    n = batch.num_rows
    numbers = np.arange(first, first + n)
    columns = {name: batch.column(name) for name in EPISODES.names}
    columns["run_id"] = pa.array([run_id] * n)
    columns["number"] = pa.array(numbers)
    columns["episode_id"] = pa.array([f"{run_id}/p0/1000/{number}" for number in numbers])
    columns["seed"] = pa.array(numbers)
    shifted = np.asarray(columns["started_at"].cast(pa.int64())) + first * 1000
    columns["started_at"] = pa.array(shifted).cast(EPISODES.field("started_at").type)
    columns["content_digest"] = pa.array(content_digests(columns))
    return pa.RecordBatch.from_arrays([columns[name] for name in EPISODES.names], schema=EPISODES)


def timed(function: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Seconds of the fastest of some calls, and what it gave."""
    best, out = float("inf"), None
    for _ in range(times):
        began = time.perf_counter()
        out = function()
        best = min(best, time.perf_counter() - began)
    return best, out


def archive(uri: str, batches: Iterator[pa.RecordBatch], run_id: str) -> None:
    committer = store.Committer(uri, run_id, 1)
    committer.register("p0")
    blocks = []
    for number, batch in enumerate(batches):
        blocks.append(store.write_block(uri, batch, "p0", 1000, number))
        if len(blocks) == 10:
            committer.commit(blocks)
            blocks = []
    if blocks:
        committer.commit(blocks)
    store.append(uri, "runs", [{"run_id": run_id, "epoch": 1, "config": json.dumps(CONFIG)}])


def writing(batch: pa.RecordBatch) -> dict[str, float]:
    """Rows/s of `write_block` against bare `write_table` of the same rows to the same disk."""
    with tempfile.TemporaryDirectory() as folder:
        table = pa.Table.from_batches([batch])
        number = iter(range(10**6))
        parts = [again(batch, "bench", i * batch.num_rows) for i in range(8)]
        bare = ours = float("inf")
        for part in parts:  # in turns
            bare = min(bare, timed(lambda: pq.write_table(table, f"{folder}/{next(number)}.parquet"))[0])
            ours = min(ours, timed(lambda part=part: store.write_block(folder, part, "p0", 1000, next(number)))[0])
    return {"bare_rows_s": batch.num_rows / bare, "rows_s": batch.num_rows / ours, "ratio": bare / ours}


def archiving(folder: str, seconds: float) -> dict[str, float]:
    """What sealing, writing and committing take of a player's time, with the recipe's search and a net of its size."""
    from selfplay.nets import Evaluator, NetConfig

    net = NetConfig(GAME.encoder.shape, GAME.num_actions, GAME.outcomes is not None, channels=32, blocks=4)
    provenance = Provenance("cost", SPEC.id, SPEC.version, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")
    settings = PlaySettings(slots=128, simulations=32, cache_entries=200_000)
    committer = store.Committer(folder, "cost", 1)
    epoch = committer.register("p0").epoch
    player = Generator(
        GAME, Evaluator(net), SearchConfig(), settings, provenance, "p0", epoch, 0, np.random.default_rng(0)
    )
    player.set_policy(Policy("cost", 0, "d" * 64))
    playing = archived = 0.0
    positions = 0
    for block in range(max(1, int(seconds / 4))):
        until = time.perf_counter() + 4.0
        spent, episodes = timed(lambda until=until: player.play(lambda *_: time.perf_counter() >= until))
        playing += spent
        began = time.perf_counter()
        committer.commit([store.write_block(folder, to_batch(episodes), "p0", epoch, block)])
        archived += time.perf_counter() - began
        positions += sum(episode.n_steps for episode in episodes)
    return {"positions_s": positions / (playing + archived), "share": archived / (playing + archived)}


def feeding(corpus: store.Corpus) -> dict[str, float]:
    """Samples/s of `to_torch` in one process."""
    import torch

    torch.set_num_threads(1)
    rows, began = 0, None
    for batch in corpus.to_torch(batch=512):
        began = began or time.perf_counter()
        rows += len(batch["z"])
        if time.perf_counter() - began > 20:
            break
    assert began is not None
    return {"samples_s": rows / (time.perf_counter() - began)}


def verifying(corpus: store.Corpus) -> dict[str, float]:
    """Games/s that one process verifies, against those that OpenSpiel alone steps through."""
    actions = [[step.action for step in e.game.steps] for e in corpus.records() if e.game]
    game = GAME.game

    def step_all() -> None:
        for line in actions:
            state = game.new_initial_state()
            for action in line:
                state.current_player()
                state.legal_actions()
                state.apply_action(action)
            str(state)
            state.returns()

    stepped, _ = timed(step_all, 3)
    verified, checks = timed(lambda: list(verify_corpus(corpus)), 2)
    assert all(check.state == "true" for check in checks), [c for c in checks if c.state != "true"][:3]
    count = len(actions)
    steps = sum(map(len, actions))
    return {"games_s": count / verified, "steps_s": steps / verified, "stepped_games_s": count / stepped}


def large(uri: str, total: int, base: pa.RecordBatch) -> dict[str, float]:
    """A corpus of many games in ten runs: counted, one run read, a sample verified."""
    began = time.perf_counter()
    each = total // 10
    for run in range(10) if not Path(uri).exists() else ():
        name = f"run{run}"
        archive(uri, (again(base, name, first) for first in range(0, each, base.num_rows)), name)
    made = time.perf_counter() - began
    one = pc.field("run_id") == "run3"
    seconds = {
        "made": made,
        "stats": timed(lambda: count(store.open(uri)), 2)[0],
        "read_one_run": timed(lambda: store.open(uri).to_arrow(one, ["episode_id", "returns", "n_steps"]), 2)[0],
        "verify_sample_of_1000": timed(lambda: sum(1 for _ in verify_corpus(store.open(uri), sample=1000)))[0],
    }
    return {
        "games": store.open(uri).count(),
        **{f"{name}_s": value for name, value in seconds.items()},
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=0)
    parser.add_argument("--run", default=None)
    parser.add_argument("--folder", default=None, help="where the large corpus is put, and kept")
    asked = parser.parse_args()
    base = games(5000)
    folder = Path(tempfile.mkdtemp())
    out: dict[str, Any] = {"writing": writing(base.slice(0, 1000)), "archiving": archiving(f"{folder}/cost", 24)}
    try:
        uri = f"{folder}/corpus"
        if asked.run:
            shutil.copytree(Path(asked.run) / "corpus", uri)
        else:
            archive(uri, (again(base, "bench", first) for first in range(0, 20_000, 5000)), "bench")
        maintenance.compact(uri)
        corpus = store.open(uri)
        numbers = count(corpus)
        out["after_compact"] = {key: numbers[key] for key in ("episodes", "steps", "files", "bytes_per_step")}
        out["feeding"] = feeding(corpus)
        archive(f"{folder}/checked", iter([base]), "bench")
        out["verifying"] = verifying(store.open(f"{folder}/checked"))
        if asked.games:
            place = asked.folder or f"{folder}/large"
            out["large"] = large(place, asked.games, base)
    finally:
        shutil.rmtree(folder)
    json.dump(out, text := io.StringIO(), indent=2)
    print(text.getvalue())


if __name__ == "__main__":
    main()
