"""What a run must remember beside net, optimiser and corpus, whatever its kind."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from selfplay.errors import Damaged

#: Rises when older code would misread state or `run.json`.
SCHEMA = 3
_CHECKPOINT = re.compile(r"[A-Za-z0-9-]+\.safetensors")


@dataclass
class RunState:
    """What a run of any kind must remember; each kind adds its own.

    checkpoint: name below `checkpoints/`, None before the first. version: newest published; digest: of its weights.
    total_s, elapsed_s: of the present plan; a plan that was cut short is finished before a new one begins.
    wandb_id: of the run at wandb, None without.
    """

    schema: int = SCHEMA
    checkpoint: str | None = None
    version: int = -1
    digest: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
    wandb_id: str | None = None

    def resumed(self) -> None:
        """Called when a run goes on from this state: what was under way when it was saved is lost."""


AnyState = TypeVar("AnyState", bound=RunState)


def state_from(kind: type[AnyState], data: Mapping[str, Any], source: str) -> AnyState:
    """A state as it was written; `source` names the place in errors.

    Raises `Damaged` for fields that are unknown or of another type, for numbers that are none, and for a checkpoint
    that is not a file's name: a path would lead out of the run's folder.
    """
    unknown = sorted(set(data) - {known.name for known in fields(kind)})
    if unknown:
        raise Damaged(source, f"it has the unknown field {unknown[0]!r}")
    try:
        state = TypeAdapter(kind).validate_python({**data, "schema": SCHEMA})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise Damaged(source, f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].lower()}") from None
    if state.checkpoint is not None and not _CHECKPOINT.fullmatch(state.checkpoint):
        raise Damaged(source, f"checkpoint: {state.checkpoint!r} is not the name of one")
    if not (math.isfinite(state.elapsed_s) and math.isfinite(state.total_s)):
        raise Damaged(source, "elapsed_s, total_s: input should be a finite number")
    return state
