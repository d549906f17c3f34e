"""A driver, a writer and a committer in one process, to be killed: plays, writes, commits, and notes every receipt.

usage: store_worker.py CORPUS RUN_FOLDER RUN_ID JOURNAL SECONDS [EPISODES_PER_BLOCK]

The journal gets a line before an episode is written ("sealed ID") and after its receipt ("archived ID").
"""

from __future__ import annotations

import sys
import time

import pyspiel

from selfplay import store
from selfplay.episode import Provenance, random_episode
from selfplay.store.table.closings import close_earlier


def main() -> None:
    corpus, run, run_id, journal_path, seconds = sys.argv[1:6]
    per_block = int(sys.argv[6]) if len(sys.argv) > 6 else 3
    provenance = Provenance(run_id, "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")
    game = pyspiel.load_game("tic_tac_toe")
    lease = store.acquire(run, "store_worker")
    committer = store.Committer(corpus, run_id, lease.epoch)
    close_earlier(corpus, run_id, lease.epoch)
    writers = [store.Writer(corpus, slot, committer.register(slot).epoch) for slot in ("a0", "a1")]
    store.append(corpus, "runs", [{"run_id": run_id, "epoch": lease.epoch}])
    until = time.monotonic() + float(seconds)
    number = 0
    with open(journal_path, "a", buffering=1) as journal:
        print("ready", flush=True)
        while time.monotonic() < until:
            blocks, names = [], []
            for writer in writers:
                first = number * per_block
                episodes = [
                    random_episode(game, n, provenance, slot=writer.slot, epoch=writer.epoch, number=n)
                    for n in range(first, first + per_block)
                ]
                names += [episode.episode_id for episode in episodes]
                journal.writelines(f"sealed {episode.episode_id}\n" for episode in episodes)
                blocks.append(writer.write(episodes)[0])
            committer.commit(blocks)
            journal.writelines(f"archived {name}\n" for name in names)
            number += 1
    lease.release()


if __name__ == "__main__":
    main()
