"""Levels are drawn by how much can be learned there, none is given up, and a restored curriculum goes on exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.reasoning.curriculum import Curriculum

NAN = float("nan")
records = st.lists(
    st.tuples(st.sampled_from([1, 2, 5]), st.lists(st.sampled_from([0.0, 1.0, 0.25, NAN]), max_size=6)), max_size=20
)


def recorded(told: list[tuple[int, list[float]]], floor: float = 0.2, decay: float = 0.9) -> Curriculum:
    made = Curriculum([1, 2, 5], floor, decay)
    for level, rewards in told:
        made.record(level, rewards)
    return made


@settings(max_examples=150, deadline=None)
@given(records, st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.5, 0.99]))
def test_probabilities_follow_the_definition(told: list[tuple[int, list[float]]], floor: float, decay: float) -> None:
    learnable = {}
    for level in (1, 2, 5):
        rewards = [r for at, given_rewards in told if at == level for r in given_rewards if r == r]
        ages = [decay ** (len(rewards) - 1 - i) for i in range(len(rewards))]
        rate = (1 + sum(r * age for r, age in zip(rewards, ages, strict=True))) / (2 + sum(ages))
        learnable[level] = rate * (1 - rate)
    expected = {
        level: floor / 3 + (1 - floor) * much / sum(learnable.values()) for level, much in learnable.items()
    }
    probabilities = recorded(told, floor, decay).probabilities()
    assert probabilities == pytest.approx(expected)
    assert sum(probabilities.values()) == pytest.approx(1) and min(probabilities.values()) >= floor / 3 - 1e-12


def test_half_solved_comes_most_and_nothing_is_forgotten() -> None:
    made = Curriculum([1, 2, 3, 4], floor=0.2)
    made.record(1, [1.0] * 400)
    made.record(2, [0.0, 1.0] * 200)
    made.record(3, [0.0] * 400)
    chances = made.probabilities()
    assert chances[2] > 0.4 and chances[4] > 0.4, "an unseen level is tried like the best"
    assert 0.05 <= chances[1] < 0.08 and 0.05 <= chances[3] < 0.08
    made.record(3, [1.0, 0.0] * 40)
    assert made.probabilities()[3] > 0.2, "what was hopeless counts as soon as it can be learned"


def test_crashed_verifiers_count_neither_way() -> None:
    assert recorded([(1, [1.0, NAN, 0.0]), (2, [NAN] * 9)]).state() == recorded([(1, [1.0, 0.0])]).state()
    with pytest.raises(ValueError, match="no level 3; there are 1, 2, 5"):
        recorded([(3, [1.0])])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        recorded([(1, [-1.0])])


@settings(max_examples=80, deadline=None)
@given(records, records)
def test_a_restored_curriculum_goes_on_exactly(
    before: list[tuple[int, list[float]]], after: list[tuple[int, list[float]]]
) -> None:
    made = recorded(before)
    restored = Curriculum.from_state(json.loads(json.dumps(made.state())))
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    for level, rewards in after:
        made.record(level, rewards)
        for reward in rewards:  # one call or many
            restored.record(level, [reward])
        assert made.draw(first) == restored.draw(second)
    assert restored.state() == made.state() and restored.probabilities() == made.probabilities()


def test_levels_are_drawn_as_often_as_told() -> None:
    made, rng = recorded([(1, [1.0] * 20), (2, [1.0, 0.0] * 9)]), np.random.default_rng(0)
    chances, drawn = made.probabilities(), [made.draw(rng) for _ in range(6000)]
    assert all(probability == chances[level] for level, probability in drawn)
    for level, chance in chances.items():
        assert sum(at == level for at, _ in drawn) / 6000 == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize(
    ("levels", "floor", "decay"), [([], 0.1, 0.9), ([1, 1], 0.1, 0.9), ([1], 2.0, 0.9), ([1], 0.1, 1.0)]
)
def test_settings_that_make_no_sense_are_refused(levels: list[int], floor: float, decay: float) -> None:
    with pytest.raises(ValueError):
        Curriculum(levels, floor, decay)
