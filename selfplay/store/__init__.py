"""The trajectory store: write, commit, read and verify a corpus of episodes.

`from selfplay import store; corpus = store.open(uri)` needs the base install only.
"""

from selfplay.store.commit import Committer, Fenced, OutOfOrder, Registration
from selfplay.store.corpus import Corpus, open
from selfplay.store.lease import Lease, Vanished, acquire
from selfplay.store.receipt import Receipt
from selfplay.store.resubmitted import Taken
from selfplay.store.table import SIDE_TABLES, append
from selfplay.store.write import Block, Writer, write_block

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
