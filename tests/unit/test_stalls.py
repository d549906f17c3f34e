"""A run in which nothing is learned says why, early, and not again and again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from selfplay.actors.reasoner import Outcome
from trainers.alphazero.stalls import GamesStall, nothing_finished
from trainers.alphazero.status import Status
from trainers.reasoning.stalls import RoundStall, teaches
from trainers.run.stalls import Reminder

STATUS = Status("openspiel:y", "openspiel:y", "runs/y", "runs/y/corpus", total_s=600.0)


def outcome(group: str, reward: float | None, reason: str = "") -> Outcome:
    state = "unverifiable" if reward is None else "accepted" if reward == 1 else "rejected"
    return Outcome(group, 1.0, state, reward, 10, False, reason=reason)


def wrong() -> list[Outcome]:
    reasons = ["the text does not end in <answer>…"] * 7 + ["the answer 12 is not 13"] * 2 + ["the answer 5 is not 8"]
    return [outcome(f"g{i % 2}", 0.0, reason) for i, reason in enumerate(reasons)]


def test_a_reminder_is_ever_more_seldom() -> None:
    reminder = Reminder()
    assert [i for i in range(1, 100) if reminder.due(True)] == [3, 9, 27, 81]
    assert not reminder.due(False)
    assert [i for i in range(1, 10) if reminder.due(True)] == [3, 9]


def test_rounds_of_wrong_answers_are_explained() -> None:
    stall = RoundStall("grpo")
    said = [stall.look(wrong(), 0.0, "I think\nit is 12") for _ in range(4)]
    assert [one is not None for one in said] == [False, False, True, False]
    text = said[2]
    assert text is not None and text.startswith("nothing to learn in the last 3 rounds: every answer has the reward 0")
    assert "70%: the text does not end in <answer>…; 30%: the answer … is not …" in text
    assert "“I think it is 12”" in text and "easier level" in text and "warm start" in text


def test_one_mixed_group_ends_it() -> None:
    stall = RoundStall("grpo")
    for _ in range(2):
        assert stall.look(wrong(), 0.0, "") is None
    assert stall.look([*wrong(), outcome("g0", 1.0)], 0.0, "") is None
    assert all(stall.look(wrong(), 0.0, "") is None for _ in range(2))


@pytest.mark.parametrize(
    ("algorithm", "rewards", "expected"),
    [
        ("grpo", {"a": [1, 1], "b": [0, 0]}, False), ("rloo", {"a": [1, 0]}, True),
        ("ppo", {"a": [1, 1], "b": [0, 0]}, True), ("ppo", {"a": [0, 0], "b": [0, 0]}, False),
        ("expert", {"a": [1, 1]}, True), ("expert", {"a": [0, 0.5]}, False), ("grpo", {"a": [None, None]}, False),
    ],
)  # fmt: skip
def test_what_teaches(algorithm: str, rewards: dict[str, list[float | None]], expected: bool) -> None:
    outcomes = [outcome(group, reward) for group, several in rewards.items() for reward in several]
    assert teaches(algorithm, outcomes) is expected


def test_other_causes_have_other_advice() -> None:
    def third(outcomes: list[Outcome], loss: float | None = None) -> str:
        stall = RoundStall("grpo")
        return [stall.look(outcomes, loss, "") for _ in range(3)][-1] or ""

    assert "harder problems" in third([outcome("a", 1.0), outcome("b", 1.0)])
    unverifiable = third([outcome("a", None, "longer than 10 s"), outcome("b", None, "longer than 10 s")])
    assert "no answer could be verified (100%: longer than … s)" in unverifiable and "check-env" in unverifiable
    assert "learning rate" in third(wrong(), math.nan)
    assert "equal rewards" in third([outcome("a", 1.0), outcome("b", 0.0, "wrong")])


def test_games_that_take_too_long() -> None:
    stall = GamesStall(1000)
    at = [s for s in range(0, 600, 10) if stall.look(replace(STATUS, elapsed_s=float(s)), {}, (64, 6400)) is not None]
    assert at == [150, 450]
    assert "no game was finished in 18 s" in nothing_finished(18.0, (177, 17700))
    assert "177 games, 100 moves each so far" in nothing_finished(18.0, (177, 17700))


def test_a_learner_that_never_begins_and_a_loss_that_is_no_number() -> None:
    stall = GamesStall(1000)
    playing = replace(STATUS, episodes=3, positions=1600, window_rows=40, window_capacity=1000, elapsed_s=200.0)
    assert "waits for 1,000 positions and has 40" in (stall.look(playing, {}, (0, 0)) or "")
    resumed = replace(STATUS, episodes=30_000, positions=900_000, elapsed_s=400.0)
    assert stall.look(resumed, {}, (0, 0)) is None, "its learner is still loading"
    learning = replace(playing, learner_steps=4)
    assert stall.look(learning, {"policy_loss": 1.0}, (0, 0)) is None
    assert "not a number" in (stall.look(learning, {"policy_loss": math.nan}, (0, 0)) or "").replace("no longer", "not")
    assert stall.look(learning, {"policy_loss": math.nan}, (0, 0)) is None
