"""Where a run keeps what others use: names below its URI. Imports neither torch nor ray."""

from __future__ import annotations

from selfplay import storage

AGENT_FILE = "agent.json"
WEIGHTS_FOLDER = "weights"
#: How the run is doing, written every few seconds.
STATUS_FILE = "status.json"


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
