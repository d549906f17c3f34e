"""The speed of a run is that of its work, also where the loop hears of it late."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from trainers.run import throughput
from trainers.run.throughput import Speed


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def work(clock: Clock, one: Speed, seconds: float, players: int = 3, rate: float = 100.0) -> list[float]:
    """Players whose calls take four seconds, one after the other; what the speed was meanwhile."""
    began, seen = clock.now, []
    for tick in range(round(seconds * 10)):
        clock.now = began + (tick + 1) / 10
        for player in range(players):
            if tick >= 40 and (tick + 1 + 13 * player) % 40 == 0:
                one.did(4 * rate, 4.0)
        seen.append(one.now())
    return seen


def test_calls_that_overlap(clock: Clock) -> None:
    seen = work(clock, Speed(), 60)
    assert seen[0] == 0.0
    assert all(280 <= rate <= 310 for rate in seen[-300:])


def test_after_a_stall_the_speed_is_none_too_high(clock: Clock) -> None:
    one = Speed()
    work(clock, one, 30)
    clock.now += 60.0  # the loop was held up, and now reads what each player had done before
    for _ in range(3):
        one.did(400, 4.0)
        clock.now += 0.0001
        assert one.now() <= 310
    assert max(work(clock, one, 60)) <= 310
    assert one.now() >= 280


def test_a_look_costs_a_few_passes_over_the_calls(clock: Clock) -> None:
    """A thousand players report hundreds of calls between two looks, and the loop looks four times a second."""

    class Counted(deque[tuple[float, float, float]]):
        passes = 0

        def __iter__(self) -> Iterator[tuple[float, float, float]]:
            self.passes += 1
            return super().__iter__()

    one = Speed()
    calls = one._calls = Counted()
    for _ in range(100):
        for _ in range(60):
            clock.now += 0.004
            one.did(400, 4.0)
        calls.passes = 0
        one.now()
        assert calls.passes <= 4
    assert one.now() == pytest.approx(400 / 0.004, rel=0.01)
    assert len(calls) < 20 / 0.004


def test_a_first_call_and_none_at_all(clock: Clock) -> None:
    one = Speed()
    assert one.now() == 0.0
    one.did(50, 0.5)
    assert one.now() == pytest.approx(100)
    one.did(0, 0.0)
    assert one.now() == pytest.approx(100)
    clock.now += 100
    assert one.now() == 0.0
