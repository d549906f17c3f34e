"""The machine's clock is set while episodes are made: they still follow one another, and nothing of them is false."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

from selfplay.episode import clock
from selfplay.store.verify.described import OTHER_CLOCK
from tests.tampering import corpus


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[itertools.count[int]]:
    """The clock is an hour slow, right, and an hour fast, in turn, at every third look."""
    looks, really = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: really() + (-3600, 0, 3600)[next(looks) // 3 % 3])
    monkeypatch.setattr(clock, "_ahead", float("-inf"))
    yield looks


def test_it_never_goes_back(jumping: itertools.count[int]) -> None:
    seen = [clock.now() for _ in range(30)]
    assert seen == sorted(seen) and 3599 < seen[-1] - seen[0] < 7300


@pytest.mark.parametrize("kind", ["_games", "_words"])
def test_what_is_made_meanwhile_follows_one_another(kind: str, jumping: itertools.count[int]) -> None:
    made = corpus._games("puct") if kind == "_games" else corpus._words()
    assert next(jumping) > len(made) and all(one.wall_ms >= 0 for one in made)
    ended = [one.started_at + 1000 * one.wall_ms for one in made]
    assert min(after - before for before, after in itertools.pairwise(ended)) > -OTHER_CLOCK
