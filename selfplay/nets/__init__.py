"""Policy-value nets: their shape, their weights, and fast inference. Plain torch; no ray.

What needs torch is imported when it is first asked for: a module here that needs none, such as the tokenizer of a
language model, can be had without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfplay.nets.config import NetConfig
    from selfplay.nets.inference import Evaluator
    from selfplay.nets.policy_value import PolicyValueNet, build, from_arrays, to_arrays, value_of
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from selfplay.nets import config, inference, policy_value

        return next(vars(module)[name] for module in (config, inference, policy_value) if name in vars(module))


__all__ = ["Evaluator", "NetConfig", "PolicyValueNet", "build", "from_arrays", "to_arrays", "value_of"]
