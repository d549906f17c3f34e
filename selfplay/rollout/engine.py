"""What generates: requests go in, completions come out as they are finished, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from selfplay.rollout.sampling import Sampling

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Request:
    """One answer that is wanted. key: of the one who asks. prompt: tokens before the answer. messages: (role, text) of
    all that was said before it, for engines that take no tokens.
    """

    key: int
    prompt: tuple[int, ...]
    sampling: Sampling
    messages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Completion:
    """One answer. token_ids: `[T]` int32, as sampled, the end token included. logprobs: `[T]` float32, nats, of the
    distribution that was drawn from; None where the engine does not say. finish_reason: "stop" or "length"; an endpoint
    may give others. text: as the engine gives it; None: whoever asked decodes. error: why there is no answer. served:
    (token, log-probability in nats) as an endpoint tells them; its tokens need not be those of token_ids.
    """

    key: int
    token_ids: Array
    logprobs: Array | None
    finish_reason: str
    text: str | None = None
    error: str | None = None
    served: tuple[tuple[str, float], ...] = ()


class Engine(Protocol):
    """Generates with one policy, whose version is `version`."""

    version: int

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in; they join those under way."""

    def advance(self) -> list[Completion]:
        """Generates until at least one answer is finished, and returns those that are; [] where nothing is wanted."""

    def cancel(self) -> None:
        """Forgets everything under way; what has not been returned never will be."""

    def load(self, tensors: dict[str, Array], version: int) -> None:
        """Takes newer weights; nothing may be under way."""


def answers(engine: Engine, requests: Sequence[Request]) -> Iterator[Completion]:
    """All completions of some requests, as they are finished."""
    engine.submit(requests)
    while done := engine.advance():
        yield from done
