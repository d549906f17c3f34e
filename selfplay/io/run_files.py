"""Where a run keeps what others use: names below its URI, and how the small files are read. Imports neither torch nor
ray.

Every driver writes down under its epoch what it begins with (`begun/000003.json`: the run's id, settings and agent) and
then what the run must remember (`state/000003.json`). Where a file is damaged, a reader takes what the one before
says; see `selfplay.io.sealed`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from selfplay.commands import command
from selfplay.errors import Damaged, UserError
from selfplay.io import sealed, storage

AGENT_FILE = "agent.json"
#: The resolved configuration.
CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
WEIGHTS_FOLDER = "weights"
CHECKPOINTS_FOLDER = "checkpoints"
#: How the run is doing, written every few seconds.
STATUS_FILE = "status.json"
#: Where damaged files are put: nothing is deleted.
DAMAGED_FOLDER = "damaged"
_STATES, _BEGUN = "state", "begun"
#: How much longer than the newest claim of a version an older one is kept.
CLAIM_S = 3600.0
#: Of schema 1, where a run's drivers all wrote their state.
OLD_STATE_FILE = "state.json"
#: Names that a run gives to files and folders below its own, in a regular expression each.
_NAMES = (
    r"(weights|checkpoints|state|begun|lease|logs|tensorboard|wandb|corpus)",
    r"weights/\d+\.(safetensors|claim)",
    r"checkpoints/[A-Za-z0-9-]+\.safetensors",
    r"(state|begun|lease)/\d+(\.[\w-]+)?\.json",
    r"logs/\d{8}-\d{6}-\d+(\.\d+)?\.log",
    r"status\.json|metrics\.prom|wandb_id|reach\.json|agent\.json|corpus\.uri",
    r"tensorboard/events\.out\.tfevents\.[^/]+",
    r"wandb/.*",
    r"corpus/(episodes|runs|policies|uses|environments|annotations|releases|history)(/.*)?",
    r"(.*/)?\.partial-[0-9a-f]{32}",
)


def is_ours(path: PurePath) -> bool:
    """Whether a path below the folder of a run is one that a run writes."""
    return any(re.fullmatch(name, path.as_posix()) for name in _NAMES)


def state_uri(run_uri: str, epoch: int) -> str:
    """Where the driver of an epoch writes down what the run must remember."""
    return storage.join(run_uri, _STATES, f"{epoch:06d}.json")


def state_epochs(run_uri: str) -> list[int]:
    """The epochs whose states the run keeps, ascending."""
    return _epochs(storage.join(run_uri, _STATES))


def begun_uri(run_uri: str, epoch: int) -> str:
    """Where the driver of an epoch writes down what it begins with: `run_id`, `config`, `agent`."""
    return storage.join(run_uri, _BEGUN, f"{epoch:06d}.json")


def begun_epochs(run_uri: str) -> list[int]:
    """The epochs of whose beginnings the run keeps a record, ascending."""
    return _epochs(storage.join(run_uri, _BEGUN))


def read_begun(run_uri: str) -> dict[str, Any]:
    """What the newest driver of which there is a whole record began with. Empty where there is none."""
    places = [begun_uri(run_uri, epoch) for epoch in reversed(begun_epochs(run_uri))]
    return sealed.load_newest_valid(places, sealed.read).value or {}


def _anything(data: dict[str, Any], source: str) -> None:
    """Finds nothing wrong."""


def read_part(
    run_uri: str,
    name: str,
    part: str,
    schema: int | None = None,
    check: Callable[[dict[str, Any], str], object] = _anything,
) -> tuple[dict[str, Any], tuple[Damaged, ...]]:
    """A file that is written once by every driver; where it is damaged, what the newest driver began with instead.

    name: of the file. part: its field in the record of the beginning. schema: as in `sealed.loads`. check: raises
    `Damaged` for what is not such a file. Also returns what was damaged. Raises `Damaged` where there is no such
    record, and `FileNotFoundError` where there is neither.
    """
    uri = storage.join(run_uri, name)

    def load(place: str) -> dict[str, Any]:
        data = sealed.read(place, schema)
        check(data, place)
        return data

    found = sealed.load_newest_valid([uri], load)
    if found.value is not None:
        return found.value, ()
    instead = read_begun(run_uri).get(part)
    if isinstance(instead, dict):
        with contextlib.suppress(Damaged):
            check(instead, uri)
            return instead, found.damaged
    if not storage.exists(uri):
        raise FileNotFoundError(uri)
    raise Damaged(uri, f"{found.damaged[0].reason}; `{command('repair', run_uri)}` shows what can be done")


def read_state(run_uri: str) -> dict[str, Any]:
    """The state that counts, the newest driver's; empty where nothing was saved. Raises `Damaged`."""
    epochs = state_epochs(run_uri)
    if epochs:
        return sealed.read(state_uri(run_uri, epochs[-1]))
    try:
        return sealed.read(storage.join(run_uri, OLD_STATE_FILE))
    except FileNotFoundError:
        return {}


def state_places(run_uri: str) -> list[str]:
    """Files that hold a state of the run, newest first: of every driver its state, then its checkpoints.

    A checkpoint holds the state as it was then, so that one is never without the other.
    """
    places = [(epoch, "~", state_uri(run_uri, epoch)) for epoch in state_epochs(run_uri)]
    for name in checkpoints(run_uri):
        epoch = name.split("-")[0]
        places.append((int(epoch) if epoch.isdigit() else 0, name, checkpoint_uri(run_uri, name)))
    old = storage.join(run_uri, OLD_STATE_FILE)
    return [uri for _, _, uri in sorted(places, reverse=True)] + [old] * storage.exists(old)


def checkpoint_uri(run_uri: str, name: str) -> str:
    """Where a run keeps a checkpoint."""
    return storage.join(run_uri, CHECKPOINTS_FOLDER, name)


def checkpoints(run_uri: str) -> list[str]:
    """Names of the checkpoints that the run keeps, oldest first: they begin with the epoch of their driver."""
    names = storage.names(storage.join(run_uri, CHECKPOINTS_FOLDER))
    return [name for name in names if name.endswith(".safetensors")]


def weights_uri(run_uri: str, version: int) -> str:
    """Where a run keeps the weights of one version."""
    return storage.join(run_uri, WEIGHTS_FOLDER, f"{version:06d}.safetensors")


def claim_uri(run_uri: str, version: int) -> str:
    """An object, empty, that says that a version's number is taken."""
    return storage.join(run_uri, WEIGHTS_FOLDER, f"{version:06d}.claim")


def newest_taken(run_uri: str) -> int:
    """The highest version whose number is taken, -1 where none is."""
    names = storage.names(storage.join(run_uri, WEIGHTS_FOLDER))
    return max((int(stem) for name in names if (stem := name.split(".")[0]).isdigit()), default=-1)


def old_claims(run_uri: str) -> list[str]:
    """Claims that nobody needs any more: not of the newest two versions, and an hour older than the newest claim.

    A claim keeps a driver that was replaced from writing over a version of its successor. It takes a number above all
    that are taken (`newest_taken`), so that an old claim only protects from a process that was suspended for an hour
    between looking for a number and claiming it.
    """
    found = storage.entries(storage.join(run_uri, WEIGHTS_FOLDER))
    claims = [entry for entry in found if entry.uri.endswith(".claim")]
    claims.sort(key=lambda entry: int(entry.uri.rsplit("/", 1)[1].split(".")[0]))
    return [claim.uri for claim in claims[:-2] if claim.modified < claims[-1].modified - CLAIM_S]


def versions(run_uri: str) -> list[int]:
    """The versions whose weights the run keeps, ascending."""
    names = storage.names(storage.join(run_uri, WEIGHTS_FOLDER))
    stems = (name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors"))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def set_aside(run_uri: str, uri: str) -> str:
    """Moves a damaged file of the run below `damaged/`, under a name that is free there; its new place.

    Raises `FileNotFoundError`, and `UserError` where a link there leads out of the run's folder.
    """
    inside = storage.normalise(uri).removeprefix(storage.normalise(run_uri) + "/")
    names = itertools.chain([inside], (f"{inside}.{number}" for number in itertools.count(1)))
    places = (storage.join(run_uri, DAMAGED_FOLDER, name) for name in names)
    place = next(place for place in places if not storage.exists(place))
    if not storage.is_remote(run_uri):
        refuse_links(run_uri, place)
    storage.move(uri, place)
    return place


def refuse_links(run_uri: str, *places: str) -> None:
    """Raises `UserError` where a local place below a run's folder is reached through a link inside that folder.

    What is written, moved or deleted there would be outside. places: none for all folders directly in the run's.
    """
    root = storage.normalise(run_uri)
    if not places and os.path.isdir(root):
        places = tuple(os.path.join(root, name, "any") for name in os.listdir(root))
    for place in places:
        folder = os.path.dirname(storage.normalise(place))
        while len(folder) > len(root):
            if os.path.islink(folder):
                raise UserError(f"{folder} is a link to {os.path.realpath(folder)}; nothing is changed through it")
            folder = os.path.dirname(folder)


def _epochs(folder: str) -> list[int]:
    stems = (name.removesuffix(".json") for name in storage.names(folder) if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdigit())
