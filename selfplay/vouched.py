"""What the commands of this user have let a run reach outside its folder, and how that is known again.

A run's folder may be a stranger's. Its settings name other places: a corpus, a model's directory, the address of an
endpoint, the variable that holds its key. A run that begins writes down those that its user named (`reach.json`), with
a signature by a secret that only this user has (`selfplay.io.scratch.secret`). So a folder that was moved is known
again by the user who began it, on the machines where that secret is, and what anybody else wrote there is not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from selfplay.errors import UserError
from selfplay.io import scratch, sealed, storage

FILE = "reach.json"


def write(run_uri: str, reach: Mapping[str, str]) -> None:
    """Vouches for what a run reaches: values of settings, by their keys. Nothing is written for a run without any."""
    if reach:
        sealed.write(storage.join(run_uri, FILE), {"reach": dict(reach), "signature": _signature(reach)})


def read(run_uri: str) -> dict[str, str]:
    """What this user's commands have let a run reach; empty where nothing says so, or somebody else does."""
    try:
        found = sealed.read(storage.join(run_uri, FILE))
    except (FileNotFoundError, NotADirectoryError, UserError):
        return {}
    reach, signature = found.get("reach"), found.get("signature")
    if not isinstance(reach, dict) or not isinstance(signature, str):
        return {}
    return reach if hmac.compare_digest(_signature(reach).encode(), signature.encode("utf-8", "replace")) else {}


def _signature(reach: Mapping[str, str]) -> str:
    return hmac.new(scratch.secret(), json.dumps(reach, sort_keys=True).encode(), hashlib.sha256).hexdigest()
