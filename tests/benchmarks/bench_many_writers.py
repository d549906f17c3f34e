"""One committer and many writers: where does the archive of a large cluster end?

    python tests/benchmarks/bench_many_writers.py --writers 1000 --rounds 3 [--out s3://bucket/x]

Each writer is what a player is to the archive: a slot with an epoch of its own that writes blocks of games. The games
are real (tic-tac-toe with a fake net); the writers take turns in this process, so that writing and committing are timed
apart. A player hands over a block every 4 s: the last figure says how many players one committer keeps up with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import numpy as np

from selfplay import store
from selfplay.episode import Provenance, to_batch
from selfplay.game import load, spec_from_string
from selfplay.generation import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.commit import Committer
from selfplay.store.write import write_block

_BLOCK_EVERY_S = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--games", type=int, default=8, help="of a block")
    parser.add_argument("--batch", type=int, default=250, help="blocks of a commit")
    parser.add_argument("--out", default=None)
    args = parser.parse_args()
    out = args.out or tempfile.mkdtemp(prefix="writers-")
    spec = spec_from_string("tic_tac_toe")
    game = load(spec)
    provenance = Provenance("run", spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    net = HashNet(game.num_actions, value_range=0.5)
    committer, timings = Committer(out, "run", 1), dict[str, float]()
    slots = [f"p{number:04d}" for number in range(args.writers)]
    began = time.perf_counter()
    epochs = {slot: committer.register(slot).epoch for slot in slots}
    timings["register"] = time.perf_counter() - began
    play = PlaySettings(slots=args.games, simulations=2)
    writers = {
        slot: Generator(game, net, SearchConfig(), play, provenance, slot, epochs[slot], 0, np.random.default_rng(seed))
        for seed, slot in enumerate(slots)
    }
    commits = []
    for number in range(args.rounds):
        blocks = []
        for slot, writer in writers.items():
            batch = to_batch(writer.play(lambda sealed, _: sealed >= args.games))
            began = time.perf_counter()
            blocks.append(write_block(out, batch, slot, epochs[slot], number))
            timings["write"] = timings.get("write", 0.0) + time.perf_counter() - began
        for first in range(0, len(blocks), args.batch):
            began = time.perf_counter()
            committer.commit(blocks[first : first + args.batch])
            commits.append(time.perf_counter() - began)
    began = time.perf_counter()
    episodes = store.open(out).count()
    timings["open and count"] = time.perf_counter() - began
    count = args.rounds * args.writers
    per_s = count / sum(commits)
    print(json.dumps({
        "writers": args.writers, "blocks": count, "episodes": episodes,
        "register_per_s": round(args.writers / timings["register"], 1),
        "write_ms_a_block": round(1000 * timings["write"] / count, 2),
        "blocks_of_a_commit": args.batch,
        "commit_ms": [round(1000 * seconds) for seconds in commits],
        "blocks_committed_per_s": round(per_s, 1),
        "open_and_count_s": round(timings["open and count"], 2),
        "players_one_committer_serves": round(per_s * _BLOCK_EVERY_S),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
