"""Another clock: from now on this process is in another year, and its time passes faster.

It covers what Python code reads from `time` and `datetime` through their modules, and what is imported from them later.
It does not cover names that were imported from them before, numpy, C++, other programs and the times of files.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from datetime import date as _date
from datetime import datetime as _datetime
from typing import Any

#: How far it is ahead, seconds: into another year, month, weekday, hour and minute. How many times faster it goes.
_AHEAD = 433 * 86_400 + 5 * 3_600 + 17 * 60
_FASTER = 1_000_000
_READ = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_TOLD = ("localtime", "gmtime", "ctime")


class _LikeTime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)


class _LikeDate(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _date)


class _Time(_datetime, metaclass=_LikeTime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return _datetime.fromtimestamp(time.time())


class _Date(_date, metaclass=_LikeDate):
    @classmethod
    def today(cls) -> Any:
        return _date.fromtimestamp(time.time())


def shift() -> None:
    """Sets this process's clocks, for good."""
    for name in _READ:
        read = _shifted(getattr(time, name))
        setattr(time, name, read)
        setattr(time, f"{name}_ns", _in_ns(read))
    for name in _TOLD:
        setattr(time, name, _of_now(getattr(time, name)))
    told = time.strftime
    time.strftime = lambda form, at=None: told(form, time.localtime() if at is None else at)
    datetime.datetime, datetime.date = _Time, _Date  # type: ignore[misc]


def _shifted(read: Callable[[], float]) -> Callable[[], float]:
    began = read()
    return lambda: began + _AHEAD + _FASTER * (read() - began)


def _in_ns(read: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(1e9 * read())


def _of_now(tell: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda seconds=None: tell(time.time() if seconds is None else seconds)
