"""An entry of a table's log: what it says, and the seal that tells a changed one from what was written.

delta-rs takes any JSON for what was meant. So who commits puts into the entry how many actions it has and the sha256 of
what they say: one that breaks off between two lines, a bit that turned, and lines of another entry are all found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from deltalake.transaction import AddAction

#: In the first line of an entry: how many actions follow it, and the sha256 over them.
ACTIONS, SEAL = "selfplay_actions", "selfplay_sha256"


def sealed(adds: Sequence[AddAction], counters: Mapping[str, int], removed: Sequence[str] = ()) -> dict[str, str]:
    """What an entry with these actions is to hold besides them. removed: paths of the files that it takes out."""
    said: list[list[Any]] = [_added(add.path, add.size, add.partition_values, add.stats) for add in adds]
    said += [["remove", path] for path in removed]
    said += [["txn", name, value] for name, value in counters.items()]
    return {ACTIONS: str(len(said)), SEAL: _digest(said)}


def actions(data: bytes) -> list[dict[str, Any]]:
    """The actions of an entry. Raises `ValueError`, with what is wrong, for one that is not what was written."""
    if not data.strip():
        raise ValueError("is empty")
    try:
        found = [json.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise ValueError("breaks off" if data.startswith(b"{") else "is not JSON") from None
    if not all(isinstance(action, dict) for action in found):
        raise ValueError("is not JSON")
    if not all(isinstance(part, dict | None) for action in found for part in action.values()):
        raise ValueError("is not the entry of a log")
    if data.endswith(b"\n") and found[-1].keys() == {"commitInfo"}:
        raise ValueError("breaks off")
    try:
        said = [part for action in found for part in _said(action)]
        about: dict[str, Any] = next((action["commitInfo"] for action in found if action.get("commitInfo")), {})
        promised = int(about.get(ACTIONS, len(found) - 1))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("is not the entry of a log") from None
    if promised != len(found) - 1:
        raise ValueError("breaks off")
    if about.get(SEAL, _digest(said)) != _digest(said):
        raise ValueError("was changed after it was written")
    return found


def run_counters(entry: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Counters of whole runs that an entry sets, if it is sealed: they rise from each entry to the next."""
    if not any(SEAL in action["commitInfo"] for action in entry if action.get("commitInfo")):
        return {}
    moved = [action["txn"] for action in entry if action.get("txn")]
    return {txn["appId"]: txn["version"] for txn in moved if not {"/", " "} & set(txn["appId"])}


def _said(action: Mapping[str, Any]) -> list[list[Any]]:
    """What an action says of files and counters, checked as far as it is used here."""
    said: list[list[Any]] = []
    if add := action.get("add"):
        if not isinstance(json.loads(add.get("stats") or "{}"), dict):
            raise ValueError("no statistics")
        said.append(_added(str(add["path"]), add["size"] + 0, add["partitionValues"] or {}, add.get("stats")))
    if remove := action.get("remove"):
        said.append(["remove", str(remove["path"])])
    if txn := action.get("txn"):
        said.append(["txn", str(txn["appId"]), txn["version"] + 0])
    return said


def _added(path: str, size: int, partition: Mapping[str, str | None], stats: str | None) -> list[Any]:
    return ["add", path, size, sorted(partition.items()), stats]


def _digest(said: Sequence[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(sorted(map(json.dumps, said))).encode()).hexdigest()
