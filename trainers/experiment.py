"""Which kind of experiment some settings describe: self-play ([env]) or reasoning ([task]); reading either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.errors import UserError
from trainers import config, reasoning_config
from trainers.config import RunConfig
from trainers.reasoning_config import ReasoningConfig
from trainers.reasoning_status import ReasoningStatus, ReasoningSummary
from trainers.settings import apply_overrides, from_mapping, parse
from trainers.status import Status, Summary

AnyConfig = RunConfig | ReasoningConfig
AnyStatus = Status | ReasoningStatus
AnySummary = Summary | ReasoningSummary
#: The resolved configuration in a run's folder.
CONFIG_NAME = "config.json"


def kind_of(data: Mapping[str, Any]) -> type[AnyConfig]:
    """The model of such settings."""
    return ReasoningConfig if "task" in data else RunConfig


def first_status(config: AnyConfig, env_id: str, out: str, activity: str) -> AnyStatus:
    """What a run tells before it has begun."""
    if isinstance(config, RunConfig):
        return Status(config.name, env_id, out, "", activity=activity, total_s=0.0)
    return ReasoningStatus(config.name, env_id, out, "", algorithm=config.learner.algorithm, activity=activity)


def from_json(text: str, source: str) -> AnyConfig:
    """Reads what `to_json` of a configuration wrote."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON: {error}") from None
    return from_mapping(kind_of(data), data, source)


def from_toml(text: str, source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Reads a recipe, changed by "KEY=VALUE" overrides."""
    return from_data(parse(text, source), source, overrides)


def from_data(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """The configuration of some settings, changed by overrides; `source` is named in errors."""
    model = kind_of(data)
    changed = apply_overrides(model, data, overrides)
    return from_mapping(model, changed, f"{source} with --set" if overrides else source)


def incompatible(old: AnyConfig, new: AnyConfig) -> str | None:
    """Why a run begun as `old` cannot go on as `new`, in words, or None."""
    if isinstance(old, RunConfig) and isinstance(new, RunConfig):
        return config.incompatible(old, new)
    if isinstance(old, ReasoningConfig) and isinstance(new, ReasoningConfig):
        return reasoning_config.incompatible(old, new)
    return f"it is {'self-play' if isinstance(old, RunConfig) else 'reasoning'}, and this is not"
