"""Chain-of-thought generation: prompt tokens in; sampled tokens and their log-probabilities out."""

from __future__ import annotations

from selfplay.rollout.engine import Completion, Engine, Request
from selfplay.rollout.sampling import Sampling, sampled_logprobs

__all__ = ["Completion", "Engine", "Request", "Sampling", "sampled_logprobs"]
