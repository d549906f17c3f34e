"""Language-model policies: their shape, their tokenizer, their weights, in the form that Hugging Face models have."""

from __future__ import annotations

from selfplay.nets.language.config import LanguageConfig
from selfplay.nets.language.policy import LanguagePolicy, fresh, load, save

__all__ = ["LanguageConfig", "LanguagePolicy", "fresh", "load", "save"]
