"""Batched tree search over OpenSpiel games: numpy and numba, arrays in and arrays out."""

from pathlib import Path

from selfplay.compilation import kept_by_sources

with kept_by_sources(Path(__file__).parent):
    from selfplay.search.batched import BatchedSearch, Evaluate, SearchResult, SearchStats
    from selfplay.search.config import SearchConfig

__all__ = ["BatchedSearch", "Evaluate", "SearchConfig", "SearchResult", "SearchStats"]
