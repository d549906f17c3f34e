"""One committer and many writers: where does the archive of a large cluster end?

    python tests/benchmarks/bench_many_writers.py --writers 1000 --rounds 3 [--out s3://bucket/x]
    python tests/benchmarks/bench_many_writers.py --writers 1000 --rounds 100 --linked
    python tests/benchmarks/bench_many_writers.py --writers 1000 --rounds 20 --compact

Each writer is what a player is to the archive: a slot with an epoch of its own that writes blocks of games. The games
are real (tic-tac-toe with a fake net); the writers take turns in this process, so that writing and committing are timed
apart. --linked: each block is another name of one file, so that a log of very many files is reached in minutes.

A run writes at most 20 blocks a second (`trainers.alphazero.loop`): `files_at_20_a_second_h` says after how many hours
it has written as many files as here; `commit_ms` how commits slow down on the way (medians of ten stretches).
--compact: as a run does (`trainers.run.auto_compaction`), each thousand files are made into few, here between the
rounds; `compact_share` is the share of a core that this costs at 20 blocks a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from selfplay import store
from selfplay.environments.game import load, spec_from_string
from selfplay.episode import Provenance, to_batch
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.table import maintenance
from selfplay.store.table.commit import Committer
from selfplay.store.table.write import Block, write_block
from trainers.run.auto_compaction import LARGE_BYTES, MOST_FILES

_BLOCKS_PER_S = 20


def played(out: str, epochs: dict[str, int], rounds: int, games: int, timings: list[float]) -> Iterator[list[Block]]:
    """Blocks of real games, a round of all writers at a time. timings: seconds to write each."""
    spec = spec_from_string("tic_tac_toe")
    game = load(spec)
    provenance = Provenance("run", spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    net, play = HashNet(game.num_actions, value_range=0.5), PlaySettings(slots=games, simulations=2)
    writers = {
        slot: Generator(game, net, SearchConfig(), play, provenance, slot, epoch, 0, np.random.default_rng(seed))
        for seed, (slot, epoch) in enumerate(epochs.items())
    }
    for number in range(rounds):
        blocks = []
        for slot, writer in writers.items():
            batch = to_batch(writer.play(lambda sealed, _: sealed >= games))
            began = time.perf_counter()
            blocks.append(write_block(out, batch, slot, epochs[slot], number))
            timings.append(time.perf_counter() - began)
        yield blocks


def linked(out: str, epochs: dict[str, int], rounds: int, games: int, timings: list[float]) -> Iterator[list[Block]]:
    """The same with other names of one file, in a local folder."""
    slot, epoch = next(iter(epochs.items()))
    ((first, *_),) = played(out, {slot: epoch}, 1, games, timings)
    folder = Path(out, "episodes")
    for number in range(rounds):
        blocks = []
        for slot, epoch in epochs.items():
            path = str(Path(first.path).with_name(f"{slot}-{number}.parquet"))
            os.link(folder / first.path, folder / path)
            blocks.append(replace(first, slot=slot, epoch=epoch, number=number, path=path))
        yield blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--games", type=int, default=8, help="of a block")
    parser.add_argument("--batch", type=int, default=250, help="blocks of a commit")
    parser.add_argument("--linked", action="store_true", help="many files, but of one block; needs a local --out")
    parser.add_argument("--compact", action="store_true", help="make few files of each thousand")
    parser.add_argument("--out", default=None)
    args = parser.parse_args()
    out = args.out or tempfile.mkdtemp(prefix="writers-")
    committer = Committer(out, "run", 1)
    began = time.perf_counter()
    epochs = {slot: committer.register(slot).epoch for slot in (f"p{number:04d}" for number in range(args.writers))}
    registered = time.perf_counter() - began
    commits, writes, compactions = list[float](), list[float](), list[float]()
    since = 0
    for number, blocks in enumerate((linked if args.linked else played)(out, epochs, args.rounds, args.games, writes)):
        for first in range(0, len(blocks), args.batch):
            began = time.perf_counter()
            committer.commit(blocks[first : first + args.batch])
            commits.append(time.perf_counter() - began)
        since += len(blocks)
        if args.compact and since >= MOST_FILES:
            began = time.process_time()
            maintenance.compact(out, LARGE_BYTES, "run")
            compactions.append((time.process_time() - began) / since)
            since = 0
        print(f"round {number + 1} of {args.rounds}: a commit takes {1000 * commits[-1]:.0f} ms", file=sys.stderr)
    began = time.perf_counter()
    episodes = store.open(out).count()
    counted = time.perf_counter() - began
    files = args.rounds * args.writers
    stretches = [part for part in np.array_split(commits, 10) if len(part)]
    print(json.dumps({
        "writers": args.writers, "files": files, "episodes": episodes,
        "files_at_20_a_second_h": round(files / _BLOCKS_PER_S / 3600, 2),
        "register_per_s": round(args.writers / registered, 1),
        "write_ms_a_block": round(1000 * sum(writes) / len(writes), 2),
        "blocks_of_a_commit": min(args.batch, args.writers),
        "commit_ms": [round(1000 * median(part)) for part in stretches],
        "blocks_committed_per_s": round(files / sum(commits), 1),
        "at_the_end_per_s": round(min(args.batch, args.writers) / median(stretches[-1]), 1),
        "files_at_the_end": len(store.open(out).files()),
        "compact_share": round(_BLOCKS_PER_S * median(compactions), 3) if compactions else None,
        "open_and_count_s": round(counted, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
