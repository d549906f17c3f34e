"""Ray Tune over recipes: every trial is a run of its own, in a folder of its own, archived like any other.

A space is a TOML file of settings. A list is a choice; a table with `min` and `max` a range (`log = true` by orders of
magnitude, whole numbers where both ends are whole):

    "learner.lr" = { min = 1e-4, max = 1e-2, log = true }
    "search.simulations" = [32, 64, 128]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.io import storage
from trainers.kinds import kind_of
from trainers.recipe import load_recipe
from trainers.run.kind import RunStatus
from trainers.run.settings import keys, parse

_REPORT_S = 5.0
#: What a trial's driver needs; its actors ask for themselves.
_DRIVER_BYTES = 2**29


@dataclass(frozen=True)
class Trial:
    """A trial that has ended. score: None where it never came to one. error: empty unless it failed."""

    out: str
    settings: dict[str, Any]
    score: float | None
    error: str


def read_space(path: str, recipe: str) -> dict[str, Any]:
    """The space of a file, checked against the recipe's settings. Raises `UserError`."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    space = _flat(parse(text, path))
    if not space:
        raise UserError(f"{path} names no setting")
    known = {name for name, _, _ in keys(type(load_recipe(recipe, ())))}
    for key, value in space.items():
        if key not in known:
            raise UserError(f"{path}: there is no setting {key}; `selfplay recipes --keys` lists them")
        ranged = isinstance(value, Mapping) and {"min", "max"} <= set(value) <= {"min", "max", "log"}
        if not ranged and not (isinstance(value, list) and value):
            raise UserError(f"{path}: {key} must be a list of values, or a table with min and max")
        for one in value if isinstance(value, list) else (value["min"], value["max"]):
            load_recipe(recipe, [f"{key}={_word(one)}"])  # refuses what the recipe does
    return space


def _flat(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted keys, whether the file writes them as tables or in quotes; a range is no table."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and "min" not in value:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _word(value: Any) -> str:
    """As `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def tune(
    recipe: str,
    space: Mapping[str, Any],
    overrides: list[str],
    out: str,
    trials: int,
    parallel: int,
    address: str | None,
) -> list[Trial]:
    """Runs the trials, at most `parallel` at once, which share the cores; best first."""
    from trainers.run import placement
    from trainers.run.ray_session import ray_session

    storage.server_time(out)  # says at once if nothing can be written there
    with ray_session(address):
        from ray import tune as ray_tune

        cores = max(1, placement.cores() // parallel)
        objective = ray_tune.with_resources(_objective, {"memory": _DRIVER_BYTES})  # cores are for the players
        config = {"recipe": recipe, "overrides": overrides, "out": out, "cores": cores, "joined": bool(address)}
        tuner = ray_tune.Tuner(
            objective,
            param_space={**config, "space": {key: _domain(value) for key, value in space.items()}},
            tune_config=ray_tune.TuneConfig(
                metric="score", mode="max", num_samples=trials, max_concurrent_trials=parallel
            ),
            run_config=ray_tune.RunConfig(name="tune", verbose=0, **_books(out)),
        )
        results = tuner.fit()
        ended = []
        for result in results:
            found = result.metrics or {}
            error = str(result.error).strip().splitlines()[-1] if result.error else ""
            where = found.get("out") or ""
            ended.append(Trial(where, dict((result.config or {}).get("space", {})), found.get("score"), error))
        return sorted(ended, key=lambda trial: -1.0 if trial.score is None else trial.score, reverse=True)


def _books(out: str) -> dict[str, Any]:
    """Where Ray Tune keeps its own books: below `out`, in a bucket by our own door to it."""
    place = storage.normalise(out)
    if not storage.is_remote(place):
        return {"storage_path": place}
    return {"storage_path": "books", "storage_filesystem": storage.arrow_filesystem(place)}


def _domain(value: Any) -> Any:
    from ray import tune as ray_tune

    if isinstance(value, list):
        return ray_tune.choice(value)
    low, high, log = value["min"], value["max"], value.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return ray_tune.lograndint(low, high + 1) if log else ray_tune.randint(low, high + 1)
    return ray_tune.loguniform(low, high) if log else ray_tune.uniform(low, high)


def _objective(config: dict[str, Any]) -> None:
    """One trial, in a process of its own."""
    from ray import tune as ray_tune

    from trainers import launch

    name = ray_tune.get_context().get_trial_id()
    out = storage.join(config["out"], name)
    chosen = [f"{key}={_word(value)}" for key, value in config["space"].items()]
    given = [*config["overrides"], *chosen]
    settings = load_recipe(config["recipe"], given)
    kind = kind_of(settings)
    own = kind.for_trial(settings, config["cores"])
    missing = [one for one in own if not any(word.startswith(one.partition("=")[0]) for word in given)]
    settings = load_recipe(config["recipe"], [*given, *missing])
    spec = kind.find(kind.environment_of(settings))
    told = 0.0

    def report(status: RunStatus) -> None:
        nonlocal told
        score = kind.score(status)
        if score is not None and (status.phase == "finished" or time.monotonic() - told >= _REPORT_S):
            told = time.monotonic()
            ray_tune.report({"score": score, "episodes": status.episodes, "elapsed_s": status.elapsed_s, "out": out})

    launch.run(settings, spec, out, None, report, threading.Event())
