"""How the runs of a corpus made policy and value targets of their searches: read from the configurations kept in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from selfplay.contract import GameSpec
from selfplay.environments import archived
from selfplay.environments.game import load
from selfplay.episode.training import TargetSettings
from selfplay.errors import UserError
from selfplay.store.corpus.kept_settings import TARGETS, fits_digest, makes_targets, settings_alone
from selfplay.store.corpus.query import condition, connect, told
from selfplay.store.table.snapshot import Snapshot


@dataclass(frozen=True)
class Targets:
    """How the learners of a corpus's runs were given targets.

    by_config: (run id, digest of its configuration) -> settings. A run may have gone on with others.
    by_run: the settings of runs whose rows do not name the digest of their configuration.
    """

    by_config: dict[tuple[str, str], TargetSettings] = field(default_factory=dict)
    by_run: dict[str, TargetSettings] = field(default_factory=dict)

    def of(self, run_id: str, config_digest: str, instead: str) -> TargetSettings:
        """The settings of an episode. Raises `UserError` where nothing is known of them. instead: what to do then."""
        found = self.by_config.get((run_id, config_digest)) or self.by_run.get(run_id)
        if found is None:
            raise UserError(
                f"the corpus does not say how run {run_id} searched under configuration {config_digest[:12]} "
                f"(table runs), or not in a way known here{instead}"
            )
        return found


def targets_of(corpus: Snapshot) -> Targets:
    """The targets that the learners of the runs in the table `runs` were given.

    Raises `UserError` for a configuration that is not the one whose digest its row, and every episode, names.
    """
    found = Targets()
    for row in sorted(corpus.rows("runs"), key=lambda row: int(row["epoch"] or 0)):
        config, digest, run_id = row["config"], row["config_digest"], row["run_id"]
        if not config:
            continue  # redacted
        if digest is not None and not fits_digest(config, digest):
            raise UserError(
                f"the configuration of run {run_id} in the corpus at {corpus.uri} is not the one whose digest it "
                f"names, {digest[:12]}: it was changed, and no targets are made by it"
            )
        settings = _settings(config)
        if settings is None:
            continue  # a run without search, or of a newer version: nothing is known of its targets
        if digest is None:
            found.by_run[run_id] = settings
        else:
            found.by_config[run_id, digest] = settings
    return found


def _settings(config: str) -> TargetSettings | None:
    whole = json.loads(settings_alone(config) or "{}")
    if not makes_targets(whole):
        return None
    search, learner = ({name: whole[part][name] for name in TARGETS[part]} for part in ("search", "learner"))
    return TargetSettings(**search, **learner, truncated_weight=whole["selfplay"]["truncated_value_weight"])


def one_config(episodes: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch | pa.Table]:
    """The same episodes, in order, in parts of one run and one configuration."""
    names = list(zip(*(episodes.column(name).to_pylist() for name in ("run_id", "config_digest")), strict=True))
    first = 0
    for last in range(1, len(names) + 1):
        if last == len(names) or names[last] != names[first]:
            yield episodes.slice(first, last - first)
            first = last


def one_game(corpus: Snapshot, env_id: str | None, what: str, where: str = "true") -> tuple[str, GameSpec]:
    """The id and the spec of `env_id`, or of the only environment of the trainable games that `where` lets through.

    what: who asks. where: SQL over `episodes`. Raises `UserError` where that is not clear, where the environment is not
    installed, and where it is another game here than the one that was played.
    """
    asked = f"FROM episodes WHERE kind = 'game' AND trainable AND {condition(where)}"
    with told():
        sql = f"SELECT env_id, list(DISTINCT game.game_string) {asked} GROUP BY 1 ORDER BY 1"
        there = {str(name): sorted(strings) for name, strings in connect(corpus).sql(sql).fetchall()}
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
