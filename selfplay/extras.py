"""How to install an extra of this distribution, from where it came from.

Its name is not on PyPI, where anybody may register it; so no message ever tells to install it by its name alone.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "selfplay-factory"


def how_to_install(*extras: str) -> str:
    """What to do for some extras, such as "factory", as the end of a sentence.

    pip remembers where a distribution came from (PEP 610): a folder or a git repository. Where it does not, a clone of
    the project is what is needed.
    """
    wanted = ",".join(extras)
    origin = _origin()
    url = origin.get("url", "")
    if "vcs_info" in origin and urlsplit(url).scheme in ("https", "ssh", "file"):
        at = origin["vcs_info"].get("commit_id", "")
        pinned = f"@{at}" if at else ""
        return f"pip install '{DISTRIBUTION}[{wanted}] @ git+{url}{pinned}'"
    folder = Path(unquote(urlsplit(url).path)) if "dir_info" in origin and url.startswith("file://") else None
    if folder is not None and (folder / "pyproject.toml").is_file() and folder != Path.cwd():
        return f"pip install '{folder}[{wanted}]'"
    return f"pip install '.[{wanted}]' in a clone of the project"


def to_install(requirement: str) -> str:
    """What to do for a requirement that an environment's author names: an extra of ours, or another distribution."""
    name, _, extras = requirement.partition("[")
    if name == DISTRIBUTION and extras:
        return how_to_install(*extras.rstrip("]").split(","))
    return f"pip install '{requirement}'"


def _origin() -> dict[str, Any]:
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
