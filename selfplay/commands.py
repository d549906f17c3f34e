"""Commands as they are shown to a person, who copies them into a shell."""

from __future__ import annotations

import shlex


def command(*words: str) -> str:
    """`selfplay` with these words, each quoted where a shell would take it apart or read more into it."""
    return shlex.join(("selfplay", *words))
