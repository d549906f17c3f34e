"""The trajectory store: write, commit, read and verify a corpus of episodes.

`from selfplay import store; corpus = store.open(uri)` needs the base install only.
"""

from selfplay.store.corpus.corpus import Corpus, open
from selfplay.store.table.commit import Committer, Fenced, OutOfOrder, Registration
from selfplay.store.table.lease import Lease, Vanished, acquire
from selfplay.store.table.receipt import Receipt
from selfplay.store.table.resubmitted import Taken
from selfplay.store.table.table import SIDE_TABLES, append
from selfplay.store.table.write import Block, Writer, write_block

__all__ = [
    "SIDE_TABLES",
    "Block",
    "Committer",
    "Corpus",
    "Fenced",
    "Lease",
    "OutOfOrder",
    "Receipt",
    "Registration",
    "Taken",
    "Vanished",
    "Writer",
    "acquire",
    "append",
    "open",
    "write_block",
]
