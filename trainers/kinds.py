"""The table of run kinds, and reading the settings of any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, storage
from trainers.alphazero.kind import KIND as SELF_PLAY
from trainers.reasoning.kind import KIND as REASONING
from trainers.run.kind import RunKind
from trainers.run.settings import Experiment, apply_overrides, from_mapping, parse

#: Distributions add kinds under this group: an entry point is a `RunKind`.
GROUP = "selfplay.run_kinds"


@lru_cache(maxsize=1)
def kinds() -> tuple[RunKind[Any], ...]:
    """All there are. Raises `UserError` for an entry point that is no kind, or that claims a section of another."""
    found: list[RunKind[Any]] = [SELF_PLAY, REASONING]
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()
        except Exception as error:
            raise UserError(f"the run kind {point.name} ({point.value}) cannot be loaded: {error}") from None
        if not isinstance(kind, RunKind):
            raise UserError(f"the run kind {point.name} ({point.value}) is not a RunKind")
        if any(kind.section == other.section or kind.name == other.name for other in found):
            raise UserError(f"the run kind {kind.name} ({point.value}) has the name or the section of another")
        found.append(kind)
    return tuple(found)


def kind_in(data: Mapping[str, Any]) -> RunKind[Any]:
    """The kind of run that such settings describe; self-play where they name no environment."""
    return next((kind for kind in reversed(kinds()) if kind.section in data), SELF_PLAY)


def kind_of(config: Experiment) -> RunKind[Any]:
    """The kind of run that these settings are of: of exactly this model, as a kind's may build on another's."""
    return next(kind for kind in kinds() if kind.config is type(config))


def kind_named(name: str) -> RunKind[Any] | None:
    """The kind of this name, as `status.json` has it."""
    return next((kind for kind in kinds() if kind.name == name), None)


def read_config(run_uri: str) -> tuple[Experiment, tuple[Damaged, ...]]:
    """The configuration of a run, and what was damaged; see `run_files.read_part`.

    Raises `FileNotFoundError` where there is no run, `Damaged`, and `UserError` for settings that are not known.
    """
    data, damaged = run_files.read_part(run_uri, run_files.CONFIG_FILE, "config")
    return from_mapping(kind_in(data).config, data, storage.join(run_uri, run_files.CONFIG_FILE)), damaged


def from_toml(text: str, source: str, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a recipe, changed by "KEY=VALUE" overrides."""
    return from_data(parse(text, source), source, overrides)


def from_data(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Experiment:
    """The configuration of some settings, changed by overrides; `source` is named in errors."""
    model = kind_in(data).config
    changed = apply_overrides(model, data, overrides)
    return from_mapping(model, changed, f"{source} with --set" if overrides else source)
