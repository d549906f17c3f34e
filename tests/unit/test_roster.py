"""Who plays: as many as wanted, replaced with patience, without those that always die."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError

from selfplay.errors import UserError
from trainers.run import supervisor
from trainers.run.supervisor import MOST_DEATHS, Roster


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


def test_there_are_as_many_as_are_wanted(clock: Clock) -> None:
    wanted = 2
    hired: list[str] = []
    players = Roster(lambda slot: hired.append(slot) or slot, lambda: wanted)
    assert players.fill() == ["p0000", "p0001"] == hired
    wanted = 4
    assert players.fill() == []  # looks every few seconds
    clock.now += 10
    assert players.fill() == ["p0002", "p0003"]
    wanted = 1
    clock.now += 10
    assert players.fill() == [] and len(players.players) == 4  # nobody is sent away: nodes that go take theirs along
    assert players.lost("p0002", ActorDiedError())
    assert players.fill(at_once=True) == []  # and is not missed


def test_a_slot_rests_longer_after_every_death_in_a_row(clock: Clock) -> None:
    players = Roster(lambda slot: slot, lambda: 1)
    players.fill()
    rests = []
    for _ in range(MOST_DEATHS - 1):
        assert players.lost("p0000", ActorDiedError())
        began = clock.now
        while not players.fill(at_once=True):
            clock.now += 0.5
        rests.append(clock.now - began)
    assert rests == [0.0, 1.0, 4.0]
    players.works("p0000")  # one good call
    assert players.lost("p0000", ActorDiedError())
    assert players.fill(at_once=True) == ["p0000"]


def test_who_always_dies_is_left_out_and_the_others_go_on(clock: Clock) -> None:
    players = Roster(lambda slot: slot, lambda: 2)
    players.fill()
    for death in range(MOST_DEATHS):
        assert players.lost("p0001", ActorDiedError()) == (death < MOST_DEATHS - 1)
        clock.now += 100
        players.fill()
    assert set(players.players) == {"p0000"}
    for _ in range(MOST_DEATHS - 1):
        players.lost("p0000", ActorDiedError())
        clock.now += 100
        players.fill()
    with pytest.raises(UserError, match="p0000 died 4 times in a row, and no other is left"):
        players.lost("p0000", ActorDiedError())


def test_who_leaves_makes_room(clock: Clock) -> None:
    players = Roster(lambda slot: slot, lambda: 1)
    players.fill()
    assert players.leave("p0000") == "p0000"
    assert players.fill(at_once=True) == ["p0000"]
