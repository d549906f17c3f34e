"""What `selfplay corpus verify --weights` adds: what nets said, computed again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from selfplay.cli.console import Console
from selfplay.errors import UserError
from selfplay.extras import how_to_install

if TYPE_CHECKING:
    from selfplay.store.table.snapshot import Snapshot
    from selfplay.store.verify.verify import Check


@dataclass(frozen=True)
class Weighing:
    """What came of it. false: of episodes and runs. weighed: episodes. left_out: reason -> decisions and answers.

    sentence: what was covered. numbers: for JSON.
    """

    false: list[Check]
    weighed: int
    left_out: dict[str, int]
    sentence: str
    numbers: dict[str, Any]


def weigh(
    corpus: Snapshot,
    asked: str,
    folders: list[str],
    sample: int | None,
    seed: int,
    searches: int,
    release: str | None = None,
) -> Weighing:
    """asked: the corpus as the user named it. folders: where he says that weights are. searches: to make again.

    release: one that may carry weights.
    """
    if find_spec("torch") is None:
        raise UserError(f"--weights needs torch: {how_to_install('factory')}")
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from selfplay import machine
    from selfplay.io import storage
    from selfplay.store.release.job import FOLDER
    from selfplay.store.verify.verify import Check
    from selfplay.weighed.check import FALSE, TRUE, WeightCheck
    from selfplay.weighed.kept import Kept, folders_of, refuse_empty

    began = time.perf_counter()
    torch.set_num_threads(max(1, machine.cores() // 2))  # more wait for each other where cores are shared
    near = folders_of(asked, corpus.uri)
    near += [] if release is None else [storage.join(corpus.uri, FOLDER, release)]
    check = WeightCheck(corpus, Kept([*map(refuse_empty, folders), *near]), sample, seed, searches)
    false: list[Check] = []
    weighed = 0
    columns = (TextColumn("weighing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=check.total)
        for one in check:
            if one.state == FALSE:
                false.append(Check(one.subject, FALSE, one.reason))
            weighed += one.state == TRUE
            progress.advance(task)
    c, seconds = check.counts, time.perf_counter() - began
    parts = []
    if c.decisions:
        parts.append(
            f"raw values and priors of {c.decisions:,} decisions (at most {c.worst[0]:.1g} apart); "
            f"{c.repeated:,} of {c.searches:,} searches, made again, have the same visits"
        )
    if c.tokens:
        parts.append(f"log-probabilities of {c.tokens:,} tokens (at most {c.worst[1]:.1g} nats apart)")
    covered = "; ".join(parts) or "nothing could be computed again"
    read = f"{weighed:,} of {check.total:,} episodes in {seconds:.1f} s"
    published = len({row["digest"] for row in corpus.table("policies", ["digest"]).to_pylist()})
    sentence = f"with the weights of {len(c.versions):,} of {published:,} versions, {read}: {covered}"
    numbers = {
        "episodes": weighed, "decisions": c.decisions, "searches": c.searches, "repeated": c.repeated,
        "tokens": c.tokens, "versions": len(c.versions), "seconds": round(seconds, 3),
        "left_out": c.left_out, "sentence": sentence,
    }  # fmt: skip
    return Weighing(false, weighed, dict(c.left_out), sentence, numbers)
