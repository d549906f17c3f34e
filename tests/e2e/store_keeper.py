"""Keeps a corpus tidy for ever, to be killed: compacts, and now and then vacuums. usage: store_keeper.py CORPUS"""

from __future__ import annotations

import sys
import time

from selfplay.errors import UserError
from selfplay.store.table import maintenance


def main() -> None:
    corpus, round_ = sys.argv[1], 0
    print("ready", flush=True)
    while True:
        try:
            maintenance.compact(corpus)
            if round_ % 3 == 2:
                maintenance.vacuum(corpus, hours=0, dry_run=False)
        except UserError:
            pass  # no corpus yet, or too many others at once: again
        round_ += 1
        time.sleep(0.05)


if __name__ == "__main__":
    main()
