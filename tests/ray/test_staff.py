"""Reasoners that die: others do their work, each block once; who always dies is left out, and the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from selfplay.actors.notice import Leaving
from selfplay.errors import UserError
from trainers.reasoning.workers import Staff

#: Starts Ray and kills actors: half a minute.
pytestmark = pytest.mark.slow


@dataclass
class Block:
    run_id: str
    slot: str
    epoch: int
    number: int
    rows: int
    first: int
    last: int


class Word(str):
    """An ask for one episode."""

    samples = 1

    @property
    def group(self) -> str:
        return str(self)


class Reasoner:
    """Answers by saying who was asked what; dies of its bad ask, or whenever it is asked.

    Of the bad ask "leave x" it hears, while at work on x, that its node will go.
    """

    def __init__(self, slot: str, epoch: int, poisoned: bool) -> None:
        self.who, self.poisoned, self.number, self.leaving = (slot, epoch), poisoned, 0, False

    def pid(self) -> int:
        return os.getpid()

    @ray.method(num_returns=2)
    def work(self, asks: Any, bad: str) -> tuple[Any, Any]:
        if self.poisoned or (bad in asks and self.who[1] == 1):
            os._exit(1)
        if self.leaving:
            raise Leaving
        self.leaving = self.who[1] == 1 and bad.removeprefix("leave ") in asks
        self.number += 1
        block = Block("run", *self.who, self.number - 1, len(asks), 0, len(asks) - 1)
        return SimpleNamespace(block=block, asks=asks, leaving=self.leaving), asks


class Archivist:
    """Refuses what an older epoch of a slot has written, and a block before the one that it follows."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.last: dict[tuple[str, int], int] = {}

    def register(self, slot: str) -> int:
        self.epochs[slot] = self.epochs.get(slot, 0) + 1
        return self.epochs[slot]

    def commit(self, blocks: list[Block]) -> list[Any]:
        for block in blocks:
            assert block.epoch == self.epochs[block.slot], "fenced"
            assert block.number == self.last.get((block.slot, block.epoch), -1) + 1, "out of order"
            self.last[block.slot, block.epoch] = block.number
        return [SimpleNamespace(table_version=1, status="committed") for _ in blocks]


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Crew:
    needs = "core"

    def __init__(self, joined: bool, poisoned: set[str]) -> None:
        self.sizing = SimpleNamespace(reasoners=3, joined=joined)
        self.amended: dict[str, Any] = {}
        self.folder = SimpleNamespace(run_id="run", amend=self.amended.update)
        self.archivist = ray.remote(Archivist).remote()
        self.tidier = SimpleNamespace(archived=lambda blocks: None)
        self.archived = lambda block, receipt: None
        self.poisoned, self.hired = poisoned, list[str]()

    def reasoners_wanted(self) -> int:
        return 3

    def reasoner(self, slot: str) -> Any:
        self.hired.append(slot)
        epoch = ray.get(self.archivist.register.remote(slot))
        return ray.remote(Reasoner).options(num_cpus=0.5).remote(slot, epoch, slot in self.poisoned)


def staff_of(crew: Crew) -> tuple[Staff, list[str]]:
    words: list[str] = []
    watch = SimpleNamespace(
        show=lambda: None,
        message=words.append,
        sampled=lambda report: None,
        lost=lambda episodes: None,
        answered=lambda done, total: words.append(f"{done} of {total}"),
    )
    staff = Staff(crew, watch)  # type: ignore[arg-type]
    staff.begin()
    while crew.sizing.joined and len(staff._reasoners) < crew.sizing.reasoners:
        staff._welcome()  # who has loaded first would get all the work, and lose all of it
        time.sleep(0.1)
    return staff, words


@pytest.mark.parametrize("joined", [False, True])
def test_what_the_dead_had_not_finished_is_asked_again_once(session: None, joined: bool) -> None:
    crew = Crew(joined, set())
    staff, words = staff_of(crew)
    asks = [Word(f"a{i}") for i in range(9)]
    calls = staff.spread(asks, "work", "a4")
    given = staff.archive(calls)
    assert sorted(ask for _, (ref,) in given for ask in ray.get(ref)) == asks
    assert any("died; another" in word for word in words)
    answered = [word for word in words if word.endswith(" of 9")]
    assert answered == sorted(answered) and answered[-1] == "9 of 9"
    # On a cluster the share may first go to another who has loaded, and who dies of it as well.
    deaths = sum("died; another" in word for word in words)
    assert deaths == 1 or joined
    assert staff.lost == 3 * deaths and not staff.in_flight(), "the share of the one that died was asked again"
    assert crew.amended["in_flight"] == dict.fromkeys(asks, 1), "written down before anybody can die"
    given = staff.archive(staff.spread(asks, "work", "none"))
    assert sorted(ask for _, (ref,) in given for ask in ray.get(ref)) == asks


@pytest.mark.parametrize("joined", [False, True])
def test_rounds_ahead_land_in_order(session: None, joined: bool) -> None:
    """An heir is asked for the first round again when it has already answered for the second."""
    staff, _ = staff_of(Crew(joined, set()))
    rounds = [[Word(f"{number}{i}") for i in range(9)] for number in "abc"]
    flights = [staff.spread(asks, "work", "a4") for asks in rounds]
    for asks, calls in zip(rounds, flights, strict=True):
        given = staff.archive(calls)
        assert sorted(ask for _, (ref,) in given for ask in ray.get(ref)) == asks


def test_who_leaves_is_asked_no_more_and_missed_by_nobody(session: None) -> None:
    """What it had finished counts; what it was asked beyond that is another's, in order."""
    crew = Crew(True, set())
    staff, words = staff_of(crew)
    rounds = [[Word(f"{number}{i}") for i in range(9)] for number in "abc"]
    flights = [staff.spread(asks, "work", "leave a0") for asks in rounds]
    for asks, calls in zip(rounds, flights, strict=True):
        given = staff.archive(calls)
        assert sorted(ask for _, (ref,) in given for ask in ray.get(ref)) == asks
    assert sum("leaves a node that has been given notice" in word for word in words) == 1
    assert not any("died" in word for word in words)
    assert len(crew.hired) == 4


@pytest.mark.parametrize("joined", [False, True])
def test_who_always_dies_is_left_out(session: None, joined: bool) -> None:
    crew = Crew(joined, {"r0001"})
    staff, words = staff_of(crew)
    asks = [Word(f"a{i}") for i in range(9)]
    end = time.monotonic() + 300
    while "reasoner r0001 died again and again and is left out; the others go on" not in words:
        assert time.monotonic() < end, words
        given = staff.archive(staff.spread(asks, "work", "none"))
        assert sorted(ask for _, (ref,) in given for ask in ray.get(ref)) == asks
    assert crew.hired.count("r0001") == 3 and crew.hired.count("r0000") == crew.hired.count("r0002") == 1


def test_where_all_die_the_run_ends_in_a_sentence(session: None) -> None:
    staff, _ = staff_of(Crew(False, {"r0000", "r0001", "r0002"}))
    with pytest.raises(UserError, match="died 3 times in a row"):
        staff.archive(staff.spread([Word("a")] * 9, "work", "none"))
