"""Who waits for room is told of, and a run for which there is none ends in a sentence."""

from __future__ import annotations

import pytest

from selfplay.errors import UserError
from selfplay.io import storage
from trainers.run import placement
from trainers.run.placement import Shortage


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(placement, "time", clock)
    monkeypatch.setattr(placement, "_alive", lambda: [{"CPU": 4.0}, {"CPU": 0.0, "GPU": 1.0}])
    return clock


def test_who_waits_for_a_core_is_told_of_once(clock: Clock) -> None:
    words: list[str] = []
    shortage = Shortage("players", "core", words.append)
    shortage.look(124, 4)
    assert words == []  # nodes may be on their way
    clock.now += 61
    shortage.look(124, 4)
    shortage.look(124, 4)
    assert len(words) == 1
    assert words[0].startswith("124 of 128 players wait for a core; Ray has 4 cores and 1 GPUs on 2 nodes")
    clock.now += 10_000
    shortage.look(120, 8)  # some play: the run goes on
    assert len(words) == 2
    shortage.look(0, 128)
    shortage.look(1, 127)
    assert len(words) == 2  # patience begins anew


def test_a_run_without_any_room_ends(clock: Clock) -> None:
    shortage = Shortage("reasoners", "GPU", lambda word: None)
    shortage.look(2, 0)
    clock.now += 901
    with pytest.raises(UserError, match="for 15 minutes all 2 reasoners wait for a GPU; Ray has 4 cores"):
        shortage.look(2, 0)


def test_a_run_that_has_just_lost_all_its_nodes_waits_for_others(clock: Clock) -> None:
    shortage = Shortage("players", "core", lambda word: None)
    shortage.look(16, 48)  # more than there is room for, from the first
    clock.now += 3600
    shortage.look(64, 0)
    clock.now += 600
    shortage.look(64, 0)
    clock.now += 400
    with pytest.raises(UserError, match="all 64 players"):
        shortage.look(64, 0)


def test_a_folder_that_this_machine_does_not_see_is_refused(tmp_path: object) -> None:
    storage.refuse_unseen(str(tmp_path))
    storage.refuse_unseen("s3://bucket/anything")  # every machine sees it
    with pytest.raises(UserError, match="nowhere is a folder that .* does not see; .* give s3:"):
        storage.refuse_unseen(f"{tmp_path}/nowhere")
