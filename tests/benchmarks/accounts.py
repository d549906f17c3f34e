"""What an archive says after a run: is anything lost, doubled, untrue, or by a policy that nobody published?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from selfplay import store
from selfplay.io import run_files
from selfplay.store.verify.verify import verify_corpus

_COLUMNS = ["episode_id", "seed", "run_id", "slot", "epoch", "number", "status", "n_steps", "policy_spans"]


def accounts(out: Path, processes: int = 2) -> dict[str, Any]:
    """Counts over the whole corpus of a run.

    lost: seal numbers missing within a writer (slot and epoch), all below its highest: acknowledged, then gone.
    doubled: episodes whose id or seed another has. untrue: checks that `verify_corpus` did not find true.
    unpublished: spans by a version and digest without a row in the table of policies.
    """
    corpus = store.open(str(out))
    rows = corpus.to_arrow(columns=_COLUMNS)
    numbers: dict[tuple[str, str, int], set[int]] = {}
    columns = (rows[name].to_pylist() for name in ("run_id", "slot", "epoch", "number"))
    for run, slot, epoch, number in zip(*columns, strict=True):
        numbers.setdefault((run, slot, epoch), set()).add(number)
    doubled = {name: rows.num_rows - len(set(rows[name].to_pylist())) for name in ("episode_id", "seed")}
    published = {(row["version"], row["digest"]) for row in corpus.table("policies").to_pylist()}
    unpublished = sum(
        span["policy_id"] != "random" and (span["version"], span["digest"]) not in published
        for spans in rows["policy_spans"].to_pylist()
        for span in spans
    )
    wrong = [check for check in verify_corpus(corpus, processes=processes) if check.state != "true"]
    return {
        "episodes": rows.num_rows,
        "statuses": dict(Counter(rows["status"].to_pylist())),
        "writers": len(numbers),
        "versions": len(published),
        "lost": sum(max(found) + 1 - len(found) for found in numbers.values()),
        "doubled": sum(doubled.values()),
        "untrue": len(wrong),
        "untrue_examples": [str(check) for check in wrong[:3]],
        "unpublished": unpublished,
        "games_lost_in_flight": lost_in_flight(out),
    }


def lost_in_flight(out: Path) -> int:
    """Games that died with a process, as the run has counted them."""
    try:
        return int(run_files.read_state(str(out))["lost_games"])
    except (KeyError, ValueError):
        return 0
