"""Policy-value nets: their shape, their weights, and fast inference. Plain torch; no ray."""

from __future__ import annotations

from selfplay.nets.config import NetConfig
from selfplay.nets.inference import Evaluator
from selfplay.nets.policy_value import PolicyValueNet, build, from_arrays, to_arrays, value_of

__all__ = ["Evaluator", "NetConfig", "PolicyValueNet", "build", "from_arrays", "to_arrays", "value_of"]
