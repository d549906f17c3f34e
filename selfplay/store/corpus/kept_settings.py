"""What a redacted release keeps of a run's configuration: what makes its targets, and what its episodes are held to.

None of them tells of a machine, a place or a person: numbers, a few words that this package defines, and the texts that
end an answer. Of the path of a model it is only kept whether there was one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

#: What makes targets of searches; a run without one of these has none that are known here.
TARGETS = {
    "search": ("algorithm", "c_visit", "c_scale"),
    "learner": ("z_weight", "q_weight"),
    "selfplay": ("truncated_value_weight",),
}
#: What verification, with weights and without, reads besides.
_CHECKED = {
    "run": ("seed",),
    "search": (
        "considered", "simulations", "cheap_simulations", "full_fraction", "c_init", "c_base", "fpu_reduction",
        "dirichlet_alpha", "dirichlet_fraction",
    ),
    "selfplay": (
        "games", "opening_fraction", "opening_plies", "opening_choices", "temperature", "temperature_plies",
        "resign_threshold", "resign_moves", "resign_playon", "ply_limit", "dtype", "device",
    ),
    "generation": ("temperature", "top_k", "top_p", "max_tokens", "stop", "group", "engine"),
    "policy": ("path", "context"),
    "curriculum": ("kind", "floor"),
    "task": ("difficulties",),
    "learner": ("algorithm",),
}  # fmt: skip
#: Parts that only the configuration of a run that reasons has.
_REASONING = ("generation", "policy", "curriculum", "task")
_WORD = re.compile("[a-z0-9_]{1,16}")
_HIDDEN_PATH = "[path]"
#: A text of this length may already become a hundred times as many bytes in memory.
MOST_CONFIG_BYTES = 4 * 2**20
#: A redacted release has no more configurations than this.
_MOST_REDACTED = 10_000


def configuration(text: Any) -> dict[str, Any] | None:
    """The configuration of a run out of its JSON; None for what is none, or has more than `MOST_CONFIG_BYTES`."""
    try:
        found = json.loads(text) if len(text) <= MOST_CONFIG_BYTES else None
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def pseudonym(number: int) -> str:
    """What a redacted copy has in place of the digest of a configuration; number: from 1."""
    return hashlib.sha256(f"configuration {number}".encode()).hexdigest()


def settings_alone(config: str | None) -> str | None:
    """A configuration with nothing left but these settings; None for a run whose kind is not known here."""
    try:
        whole = json.loads(config or "{}")
        kept = _kept(whole)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return json.dumps(kept) if makes_targets(kept) or "generation" in kept else None


def makes_targets(config: Mapping[str, Any]) -> bool:
    """Whether a configuration says in full how its searches become targets."""
    try:
        numbers = [config[part][name] for part, names in TARGETS.items() for name in names if name != "algorithm"]
        return config["search"]["algorithm"] in ("gumbel", "puct") and all(map(_is_number, numbers))
    except (KeyError, TypeError):
        return False


def _kept(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    reasons = isinstance(whole.get("generation"), dict)
    for source in (TARGETS, _CHECKED):
        for part, names in source.items():
            given = whole.get(part)
            if not isinstance(given, dict) or (part in _REASONING and not reasons):
                continue
            some = {name: given[name] for name in names if name in given and _tells_nothing(name, given[name])}
            if some.get("path") is not None:
                some["path"] = _HIDDEN_PATH
            found.setdefault(part, {}).update(some)
    return {part: some for part, some in found.items() if some}


def _tells_nothing(name: str, value: Any) -> bool:
    if value is None or _is_number(value) or name == "path":
        return True
    kind = str if name == "stop" else int | float
    if isinstance(value, list):
        return all(isinstance(one, kind) for one in value)
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def fits_digest(config: str, digest: str) -> bool:
    """Whether a configuration is the one that this digest, of a row of `runs` and of its episodes, stands for.

    A redacted release names its configurations by numbers, and keeps nothing of them but these settings.
    """
    found = configuration(config)
    return found is not None and _has_digest(found, digest)


def by_digest(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """config digest -> configuration, of the rows of the table `runs` that have the one whose digest they state."""
    found = {}
    for row in runs:
        config, digest = configuration(row["config"]), row["config_digest"]
        if config and digest and _has_digest(config, digest):
            found[digest] = config
    return found


def _has_digest(config: dict[str, Any], digest: str) -> bool:
    try:
        canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return False
    if hashlib.sha256(canonical.encode(errors="replace")).hexdigest() == digest:
        return True
    alone = settings_alone(canonical) if digest in _redacted_digests() else None
    return alone is not None and json.loads(alone) == config


@cache
def _redacted_digests() -> frozenset[str]:
    return frozenset(map(pseudonym, range(1, _MOST_REDACTED + 1)))
