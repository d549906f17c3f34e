"""Which kind of experiment some settings describe: self-play ([env]) or reasoning ([task]); reading either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.errors import Damaged
from selfplay.io import run_files, sealed, storage
from trainers.alphazero import config
from trainers.alphazero.config import RunConfig
from trainers.alphazero.status import Status, Summary
from trainers.reasoning import config as reasoning_config
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.status import ReasoningStatus, ReasoningSummary
from trainers.run.settings import apply_overrides, from_mapping, parse

AnyConfig = RunConfig | ReasoningConfig
AnyStatus = Status | ReasoningStatus
AnySummary = Summary | ReasoningSummary


def kind_of(data: Mapping[str, Any]) -> type[AnyConfig]:
    """The model of such settings."""
    return ReasoningConfig if "task" in data else RunConfig


def first_status(config: AnyConfig, env_id: str, out: str, activity: str) -> AnyStatus:
    """What a run tells before it has begun."""
    if isinstance(config, RunConfig):
        return Status(config.name, env_id, out, "", activity=activity, total_s=0.0)
    return ReasoningStatus(config.name, env_id, out, "", algorithm=config.learner.algorithm, activity=activity)


def from_json(text: str, source: str) -> AnyConfig:
    """Reads what `to_json` of a configuration wrote. Raises `Damaged` for what is no JSON object."""
    data = sealed.loads(text, source)
    return from_mapping(kind_of(data), data, source)


def read_config(run_uri: str) -> tuple[AnyConfig, tuple[Damaged, ...]]:
    """The configuration of a run, and what was damaged; see `run_files.read_part`.

    Raises `FileNotFoundError` where there is no run, `Damaged`, and `UserError` for settings that are not known.
    """
    data, damaged = run_files.read_part(run_uri, run_files.CONFIG_FILE, "config")
    return from_mapping(kind_of(data), data, storage.join(run_uri, run_files.CONFIG_FILE)), damaged


def from_toml(text: str, source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Reads a recipe, changed by "KEY=VALUE" overrides."""
    return from_data(parse(text, source), source, overrides)


def from_data(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """The configuration of some settings, changed by overrides; `source` is named in errors."""
    model = kind_of(data)
    changed = apply_overrides(model, data, overrides)
    return from_mapping(model, changed, f"{source} with --set" if overrides else source)


#: Settings that name places, and those that name what is outside a run's folder in any case. Rules and questions are
#: not among them: the registry looks after these.
_PLACES = ("run.corpus", "policy.path", "warm.corpus")
_OUTSIDE = ("endpoint.url", "endpoint.key_variable")


def reach(config: AnyConfig, run_uri: str) -> dict[str, str]:
    """What a run with these settings reaches outside its folder: values by the keys of settings."""
    found: dict[str, str] = {}
    for key in (*_PLACES, *_OUTSIDE):
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section, None), name, None)
        if value is not None and (key in _OUTSIDE or not storage.is_below(value, run_uri)):
            found[key] = value
    return found


def incompatible(old: AnyConfig, new: AnyConfig) -> str | None:
    """Why a run begun as `old` cannot go on as `new`, in words, or None."""
    if isinstance(old, RunConfig) and isinstance(new, RunConfig):
        return config.incompatible(old, new)
    if isinstance(old, ReasoningConfig) and isinstance(new, ReasoningConfig):
        return reasoning_config.incompatible(old, new)
    return f"it is {'self-play' if isinstance(old, RunConfig) else 'reasoning'}, and this is not"
