"""What every test shares: the registry of environments is, after each, as it was before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selfplay.environments import registry


@pytest.fixture(autouse=True)
def _known_environments() -> Iterator[None]:
    """A file that one test has loaded is unknown to the next, whichever process runs it."""
    registry.all_specs()
    known = registry._known
    by_id, files, strings = dict(known.by_id), dict(known.files), set(known.strings)
    yield
    known.by_id, known.files, known.strings = by_id, files, strings
