"""Language-model policies: their shape, their tokenizer, their weights, in the form that Hugging Face models have.

What needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfplay.nets.language.config import LanguageConfig
    from selfplay.nets.language.policy import LanguagePolicy, fresh, load, save
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from selfplay.nets.language import config, policy

        return next(vars(module)[name] for module in (config, policy) if name in vars(module))


__all__ = ["LanguageConfig", "LanguagePolicy", "fresh", "load", "save"]
