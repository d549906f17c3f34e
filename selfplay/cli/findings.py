"""What a check of an installation, a machine or a cluster finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """level: "ok"; "note" (works, but a person may want to know); "bad" (something will not work)."""

    subject: str
    level: Level
    text: str
