"""Where a run keeps what others use: names below its URI. Imports neither torch nor ray."""

from __future__ import annotations

import json
from typing import Any

from selfplay import storage

AGENT_FILE = "agent.json"
WEIGHTS_FOLDER = "weights"
#: How the run is doing, written every few seconds.
STATUS_FILE = "status.json"
_STATES = "state"
#: Of schema 1, where a run's drivers all wrote their state.
OLD_STATE_FILE = "state.json"


def state_uri(run_uri: str, epoch: int) -> str:
    """Where the driver of an epoch writes down what the run must remember."""
    return storage.join(run_uri, _STATES, f"{epoch:06d}.json")


def state_epochs(run_uri: str) -> list[int]:
    """The epochs whose states the run keeps, ascending."""
    names = storage.names(storage.join(run_uri, _STATES))
    return sorted(int(stem) for name in names if (stem := name.removesuffix(".json")).isdigit())


def read_state(run_uri: str) -> dict[str, Any]:
    """The state that counts, the newest driver's; empty where nothing was saved."""
    epochs = state_epochs(run_uri)
    if epochs:
        return dict(json.loads(storage.read(state_uri(run_uri, epochs[-1]))))
    try:
        return dict(json.loads(storage.read(storage.join(run_uri, OLD_STATE_FILE))))
    except FileNotFoundError:
        return {}


def weights_uri(run_uri: str, version: int) -> str:
    """Where a run keeps the weights of one version."""
    return storage.join(run_uri, WEIGHTS_FOLDER, f"{version:06d}.safetensors")


def claim_uri(run_uri: str, version: int) -> str:
    """An object, empty, that says that a version's number is taken."""
    return storage.join(run_uri, WEIGHTS_FOLDER, f"{version:06d}.claim")


def versions(run_uri: str) -> list[int]:
    """The versions whose weights the run keeps, ascending."""
    names = storage.names(storage.join(run_uri, WEIGHTS_FOLDER))
    return sorted(int(name.split(".")[0]) for name in names if name.endswith(".safetensors"))
