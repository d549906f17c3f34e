"""How the runs of a corpus made policy and value targets of their searches: read from the configurations kept in it."""

from __future__ import annotations

import json

from selfplay import archived
from selfplay.contract import GameSpec
from selfplay.episode.training import TargetSettings
from selfplay.errors import UserError
from selfplay.game import load
from selfplay.store.query import told
from selfplay.store.read import Corpus


def targets_of(corpus: Corpus) -> dict[str, TargetSettings]:
    """For each run that the table `runs` describes: the targets that its own learner was given."""
    found = {}
    for row in sorted(corpus.table("runs").to_pylist(), key=lambda row: int(row["epoch"])):
        config = json.loads(row["config"] or "{}")  # a redacted release has none
        if not {"search", "learner", "selfplay"} <= set(config):
            continue  # a run without search
        if config["search"]["algorithm"] not in ("gumbel", "puct"):
            continue  # of a newer version: nothing is known of its targets
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


#: The settings that `targets_of` reads.
_SETTINGS = {
    "search": ("algorithm", "c_visit", "c_scale"),
    "learner": ("z_weight", "q_weight"),
    "selfplay": ("truncated_value_weight",),
}


def settings_alone(config: str | None) -> str | None:
    """A configuration with nothing left but what makes targets of its searches; None for a run without search."""
    try:
        whole = json.loads(config or "{}")
        kept = {part: {name: whole[part][name] for name in names} for part, names in _SETTINGS.items()}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = [value for part in kept.values() for name, value in part.items() if name != "algorithm"]
    known = kept["search"]["algorithm"] in ("gumbel", "puct")
    return json.dumps(kept) if known and all(isinstance(one, int | float) for one in numbers) else None


def one_game(corpus: Corpus, env_id: str | None, what: str, where: str = "true") -> tuple[str, GameSpec]:
    """The id and the spec of `env_id`, or of the only environment of the trainable games that `where` lets through.

    what: who asks. where: SQL over `episodes`. Raises `UserError` where that is not clear, where the environment is not
    installed, and where it is another game here than the one that was played.
    """
    asked = f"FROM episodes WHERE kind = 'game' AND trainable AND ({where})"
    with told():
        sql = f"SELECT env_id, list(DISTINCT game.game_string) {asked} GROUP BY 1 ORDER BY 1"
        there = {str(name): sorted(strings) for name, strings in corpus.to_duckdb().sql(sql).fetchall()}
    if not there:
        asked_for = "" if where == "true" else f" with {where}"
        raise UserError(f"the corpus at {corpus.uri} holds no trainable games{asked_for}")
    if env_id is None and len(there) == 1:
        (env_id,) = there
    if env_id is None or env_id not in there:
        raise UserError(f"{what} is of one environment; say which: {', '.join(there)}")
    strings = there[env_id]
    if len(strings) > 1:
        played = ", ".join(strings)
        raise UserError(f"{what} is of one game; {env_id} was played as {played}: filter by game.game_string")
    spec = archived.find_game(env_id, strings[0])
    if load(spec).string != strings[0]:
        raise UserError(f"{env_id} is {load(spec).string} here, and was played as {strings[0]}")
    return env_id, spec
