"""The log of a run: levels, and JSON or words."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from selfplay.errors import UserError
from trainers.run import event_log


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    level = event_log.LOGGER.level
    yield
    event_log.LOGGER.setLevel(level)


def test_events_have_levels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    event_log.note("run-1", "published", version=3)
    event_log.note("run-1", "died", who="player p0000")
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["level"], first["run"], first["event"], first["version"]) == ("INFO", "run-1", "published", 3)
    assert (second["level"], second["who"]) == ("WARNING", "player p0000")

    monkeypatch.setenv("SELFPLAY_LOG_LEVEL", "warning")
    monkeypatch.setenv("SELFPLAY_LOG_FORMAT", "text")
    event_log.configure()
    event_log.note("run-1", "published", version=4)
    event_log.note("run-1", "died", who="the learner")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("WARNING run-1: died who=the learner")


def test_others_may_listen(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    listener = Listener()
    event_log.LOGGER.addHandler(listener)
    try:
        event_log.note("run-1", "compacted", before=9)
    finally:
        event_log.LOGGER.removeHandler(listener)
    assert [record.getMessage() for record in heard] == ["compacted"] and len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [("SELFPLAY_LOG_LEVEL", "loud"), ("SELFPLAY_LOG_FORMAT", "xml")])
def test_a_wrong_variable_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name):
        event_log.configure()
