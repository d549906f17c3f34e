"""Settings of runs: frozen models that forbid unknown keys, read from TOML or JSON, changed by "KEY=VALUE".

A key that nothing reads is an error, and so is an inconsistent pair of values; what is wrong is told in a sentence.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfplay.errors import UserError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class Settings(BaseModel):
    """Frozen, strictly typed (a whole number may stand for a float), unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class Experiment(Settings):
    """One experiment, complete: what `selfplay run` executes."""

    name: Annotated[str, Field(min_length=1)]
    """The recipe's name; a run folder belongs to one recipe."""
    summary: str = ""
    """One sentence for `selfplay recipes`."""

    if TYPE_CHECKING:  # declared last by each kind, as its settings are written in that order

        @property
        def run(self) -> RunSettings: ...

    def to_json(self) -> str:
        """The resolved configuration, every key present, as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"

    @property
    def digest(self) -> str:
        """sha256 hex of the canonical JSON, as stored with every episode."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class RunSettings(Settings):
    """The section `run`, as far as every kind of run has it."""

    minutes: Annotated[float, Field(gt=0)] = 10.0
    """Length of the run."""
    corpus: str | None = None
    """Where episodes go, a path or s3://…; many runs may share one. Not set: the folder `corpus` of the run's own."""
    seed: NonNegative = 0
    """Root of every random generator of the run."""
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds between two checkpoints."""
    keep_checkpoints: Positive = 5
    """The newest checkpoints kept."""
    keep_every: Positive = 10
    """Besides, every k-th version's weights are kept; every 2k-th, 4k-th, … where that would be more than 1,000."""
    keep_days: Annotated[float, Field(ge=1)] | None = 7.0
    """Days of history to keep. Log entries and replaced files that only older, unreleased versions of the corpus need
    are deleted; none: keep everything. Runs that share a corpus keep the largest of their values."""


def first_change(old: Settings, new: Settings, keys: Sequence[str]) -> str | None:
    """Which of these keys, or keys of these sections, has another value in `new`, in words; None: none has."""
    for key in keys:
        before, after = (attrgetter(key)(one) for one in (old, new))
        if isinstance(before, Settings):
            inner = first_change(before, after, list(type(before).model_fields))
            if inner is not None:
                return f"{key}.{inner}"
        elif before != after:
            return f"{key} is {before!r} there and {after!r} here"
    return None


AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


def from_mapping(model: type[AnyExperiment], data: Mapping[str, Any], source: str) -> AnyExperiment:
    """Validates; `source` names where the values come from ("connect_four.toml") in the sentence of the error."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(_sentences(model, error))}") from None


def parse(text: str, source: str) -> dict[str, Any]:
    """The keys of a recipe in TOML. Raises `UserError` for what is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{source} is not a recipe: its brackets are nested too deep") from None


def keys(model: type[Experiment]) -> Iterator[tuple[str, str, Any]]:
    """(dotted key, description, default or None if required) of every setting."""
    yield from _keys(model, "")


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, Any]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info.description or "", None if info.is_required() else info.default


def apply_overrides(model: type[Experiment], data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with "search.simulations=64" (or, where only one section has the key, "seed=3") applied.

    VALUE is read as TOML (`true`, `64`, `2e-3`, `["random"]`), else taken as text; `none` means no value.
    """
    result: dict[str, Any] = json.loads(json.dumps(data))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text!r} is not of the form KEY=VALUE, such as search.simulations=64")
        *sections, last = _full_key(model, key.strip()).split(".")
        target = result
        for section in sections:
            if not isinstance(target.setdefault(section, {}), dict):
                raise UserError(f"{section} = {target[section]!r}, expected a section of settings")
            target = target[section]
        target[last] = _value(value.strip())
    return result


def _full_key(model: type[Experiment], key: str) -> str:
    known = [k for k, _, _ in keys(model)]
    if key in known:
        return key
    matches = [k for k in known if k.rsplit(".", 1)[-1] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"--set {key}: more than one setting has this name; say {' or '.join(matches)}")
    raise UserError(f"--set {key}: there is no such setting{_nearest(model, key)}")


def _nearest(model: type[Experiment], key: str) -> str:
    known = [k for k, _, _ in keys(model)]
    sections = {k.split(".", 1)[0]: k for k in known}
    near = difflib.get_close_matches(key, known if "." in key else sections, 1, 0.6)
    if not near:
        last = key.rsplit(".", 1)[-1]
        by_last = {k.rsplit(".", 1)[-1]: k for k in known}
        near = [by_last[name] for name in difflib.get_close_matches(last, by_last, 1, 0.5)]
    return f"; the nearest is {near[0]}" if near else "; `selfplay recipes --keys` lists them"


def _value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sentences(model: type[Experiment], error: ValidationError) -> Iterator[str]:
    """One sentence a wrong key: its name, the value given, what was expected."""
    wrong: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
        known = [k for k, _, _ in keys(model)]
        # The tail of a location inside a union names the alternative that failed, not a key.
        while len(path) > 1 and item["type"] != "extra_forbidden" and not _is_key(path, known):
            path.pop()
        wrong.setdefault(".".join(path), []).append(item)
    for key, items in wrong.items():
        given = json.dumps(items[0]["input"], default=str)
        if items[0]["type"] == "extra_forbidden":
            yield f"there is no setting {key} (given {given}){_nearest(model, key)}"
        elif items[0]["type"] == "missing":
            yield f"the setting {key} is missing"
        elif items[0]["type"] == "value_error":
            yield f"in {key or 'the settings'}, {str(items[0]['ctx']['error'])}"
        else:
            expected = " or ".join(dict.fromkeys(_expected(item["msg"]) for item in items))
            yield f"{key} = {given}, expected {expected}"


def _is_key(path: list[str], known: list[str]) -> bool:
    dotted = ".".join(path)
    return any(k == dotted or k.startswith(dotted + ".") for k in known)


def _expected(message: str) -> str:
    text = message.removeprefix("Input should be ")
    plain = {
        "a valid integer": "a whole number",
        "a valid number": "a number",
        "a valid boolean": "true or false",
        "a valid string": "text in quotes",
        "a valid tuple": "a list",
    }
    if text.startswith("a valid dictionary or instance"):
        return "a section of settings"
    if text.startswith("String should match"):
        return "'random', 'checkpoints' or 'mctsN' with N rollouts"
    return plain.get(text, text)
