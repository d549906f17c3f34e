"""What a run reaches outside its folder, by its settings."""

from __future__ import annotations

from selfplay.io import storage
from trainers.run.settings import Experiment

#: Settings that name places, and those that name what is outside a run's folder in any case. Rules and questions are
#: not among them: the registry looks after these.
_PLACES = ("run.corpus", "policy.path", "warm.corpus")
_OUTSIDE = ("endpoint.url", "endpoint.key_variable")


def reach(config: Experiment, run_uri: str) -> dict[str, str]:
    """What a run with these settings reaches outside its folder: values by the keys of settings."""
    found: dict[str, str] = {}
    for key in (*_PLACES, *_OUTSIDE):
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section, None), name, None)
        if value is not None and (key in _OUTSIDE or not storage.is_below(value, run_uri)):
            found[key] = value
    return found
