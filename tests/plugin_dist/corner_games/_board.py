"""What the games of this distribution share; not a game, so its name begins with "_"."""

from __future__ import annotations

SIZE = 4
