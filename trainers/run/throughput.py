"""How fast a run is and how busy, by when the work was done and not by when the loop heard of it."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, Protocol, TypeVar, cast

#: Seconds over which the speed is taken.
WINDOW_S = 15.0


class Speed:
    """The speed of many workers that report what each call has done.

    Calls overlap, and a report may be read late. So each counts for the seconds that it took, and the newest seconds,
    of which not all calls have reported yet, do not count.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[float, float, float]] = deque()  # when it began, when it ended, what it has done

    def did(self, amount: float, seconds: float) -> None:
        """A call that has taken so long has reported."""
        now = time.monotonic()
        self._calls.append((now - seconds, now, amount))

    def now(self) -> float:
        """Amount a second; 0 where nothing was reported for long."""
        if not self._calls:
            return 0.0
        longest, last = max(end - begin for begin, end, _ in self._calls), self._calls[-1][1]
        while self._calls[0][1] < last - WINDOW_S - longest:
            self._calls.popleft()
        if time.monotonic() - last > WINDOW_S + 2 * longest:
            return 0.0
        first = min(begin for begin, _, _ in self._calls)
        stop = last - longest
        start = max(first, stop - WINDOW_S)
        if stop - start < longest:  # at the beginning
            start, stop = first, last
        done = sum(
            amount * max(0.0, min(end, stop) - max(begin, start)) / (end - begin)
            for begin, end, amount in self._calls
            if end > begin
        )
        return done / max(stop - start, 1e-3)


@dataclass(frozen=True)
class Spent:
    """What a call has taken: seconds, by the clock; cpu_s, of processors."""

    seconds: float = 0.0
    cpu_s: float = 0.0


class _Answer(Protocol):
    @property
    def spent(self) -> Spent: ...


Call = ParamSpec("Call")
Given = TypeVar("Given", bound=_Answer)


def timed(work: Callable[Call, Given]) -> Callable[Call, Given]:
    """A method whose answer, a dataclass, says in `spent` what the call has taken."""

    @functools.wraps(work)
    def measured(*args: Call.args, **kwargs: Call.kwargs) -> Given:
        seconds, cpu_s = time.perf_counter(), time.process_time()
        answer = work(*args, **kwargs)
        spent = Spent(time.perf_counter() - seconds, time.process_time() - cpu_s)
        return cast(Given, replace(cast(Any, answer), spent=spent))

    return measured


class Busy:
    """How many cores are at work, for whom, on average over the last seconds."""

    def __init__(self, *who: str) -> None:
        self._speeds = {name: Speed() for name in who}

    def did(self, who: str, spent: Spent) -> None:
        """A call of one of them has reported."""
        self._speeds[who].did(spent.cpu_s, spent.seconds)

    def now(self) -> Mapping[str, float]:
        return {who: speed.now() for who, speed in self._speeds.items()}
