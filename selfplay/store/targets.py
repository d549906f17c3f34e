"""How the runs of a corpus made policy and value targets of their searches: read from the configurations kept in it."""

from __future__ import annotations

import json

from selfplay.episode.training import TargetSettings
from selfplay.errors import UserError
from selfplay.store.read import Corpus


def targets_of(corpus: Corpus) -> dict[str, TargetSettings]:
    """For each run that the table `runs` describes: the targets that its own learner was given."""
    found = {}
    for row in sorted(corpus.table("runs").to_pylist(), key=lambda row: int(row["epoch"])):
        config = json.loads(row["config"])
        if not {"search", "learner", "selfplay"} <= set(config):
            continue  # a run without search
        search, learner = config["search"], config["learner"]
        found[row["run_id"]] = TargetSettings(
            algorithm=search["algorithm"],
            c_visit=search["c_visit"],
            c_scale=search["c_scale"],
            z_weight=learner["z_weight"],
            q_weight=learner["q_weight"],
            truncated_weight=config["selfplay"]["truncated_value_weight"],
        )
    return found


def one_env(corpus: Corpus, env_id: str | None, what: str) -> str:
    """`env_id`, or the only environment of kind game in the corpus. Raises `UserError` where that is not clear."""
    import pyarrow.compute as pc

    ids = corpus.to_arrow(pc.field("kind") == "game", ["env_id"]).column("env_id")
    there = sorted(pc.unique(ids).to_pylist())
    if env_id is None and len(there) == 1:
        return str(there[0])
    if env_id in there:
        return str(env_id)
    if not there:
        raise UserError(f"the corpus at {corpus.uri} holds no games")
    raise UserError(f"{what} is of one environment; say which: {', '.join(there)}")
