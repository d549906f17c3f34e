"""Which problems a run asks: none from the wrong side of the split and none twice, wherever it is cut off."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.actors.reasoner import Ask
from selfplay.contract import Message, Problem
from selfplay.environments import registry
from selfplay.environments.task import Task
from selfplay.errors import UserError
from trainers.kinds import REASONING
from trainers.reasoning.actors import begun_with
from trainers.reasoning.config import ReasoningConfig
from trainers.reasoning.memory_budget import Footprint, refuse_too_large
from trainers.reasoning.problem_splits import refuse_empty_sides
from trainers.reasoning.problems import Found, Problems
from trainers.reasoning.status import ReasoningStatus, Score

TASK = Task(registry.find_task("parity"))
LEVELS = [12.0, 16.0]


def test_only_training_problems_are_asked_and_the_measured_ones_never() -> None:
    problems = Problems(TASK, LEVELS, 3, {})
    asked = {TASK.pose(problems.next(12.0), 12.0).digest for _ in range(300)}
    asked |= {TASK.pose(ask.seed, ask.difficulty).digest for ask in problems.worked(100, LEVELS, 0.0)}
    for side in ("held_out", "development"):
        measured = problems.measured(7, side, LEVELS, 64)
        assert len(measured) == 64 and measured == Problems(TASK, LEVELS, 4, {}).measured(7, side, LEVELS, 64)
        posed = [TASK.pose(ask.seed, ask.difficulty) for ask in measured]
        assert all(one.held_out == (side == "held_out") for one in posed)
        assert all(one.side == side for one in posed)
        assert not asked & {one.digest for one in posed}


def few(questions: int) -> Task:
    """A task of two levels; the first has so few questions."""

    def sample(seed: int, difficulty: float) -> Problem:
        return Problem(seed, difficulty, {"n": str(seed % questions if difficulty == 1 else seed)})

    def prompt(problem: Problem) -> list[Message]:
        return [Message("user", f"{problem.data['n']} of {problem.difficulty:g}?")]

    return Task(replace(TASK.spec, difficulties=(1.0, 2.0), sample=sample, prompt=prompt))


def test_a_level_that_lacks_problems_of_a_side_is_refused_before_anything_is_played() -> None:
    one = few(1)
    (only,) = {one.pose(seed, 1.0).side for seed in range(5)}
    assert only == "training"
    task = {"id": "parity"}

    def refused(**more: object) -> str:
        with pytest.raises(UserError) as said:
            refuse_empty_sides(ReasoningConfig.model_validate({"name": "a", "task": task} | more), one)
        return str(said.value)

    above = {"difficulties": [2.0]}
    assert "no held-out problems of difficulty 1 (one in 10 is held out); set evaluation.difficulties" in refused()
    warm = {"episodes": 5, "steps": 5, "difficulties": [1.0]}
    settings = {"learner": {"algorithm": "expert"}, "warm": warm, "evaluation": above}
    refuse_empty_sides(ReasoningConfig.model_validate({"name": "a", "task": task, **settings}), one)
    assert "no development problems of difficulty 1 (" in (said := refused(**settings, expert={"start": 1.0}))
    assert "set expert.start above it" in said
    target = {"run": {"target": 0.5}, "task": {"id": "parity", "difficulties": [2.0]}}
    refuse_empty_sides(ReasoningConfig.model_validate({"name": "a", **target}), one)
    assert "has no difficulty 3; it has 1, 2" in refused(task={"id": "parity", "difficulties": [3.0]})
    assert "none of the task's difficulties" in refused(**settings, expert={"start": 7.0})


def test_what_is_held_out_chooses_no_settings() -> None:
    held_out = Score(3, None, 0.9, 0.8, 1.0, 64, 12.0, 60.0)
    status = ReasoningStatus("parity", "parity-v0", "a", "a/corpus", scores=(held_out,))
    assert REASONING.score(status) is None and REASONING.score(replace(status, development=0.5)) == 0.5


def test_a_run_goes_on_with_the_version_of_the_task_that_it_began_with() -> None:
    newest, before = registry.find_task("countdown"), registry.find_task("countdown-v0")
    assert begun_with(newest, None) is newest is begun_with(newest, {"env": {"id": "countdown-v1"}})
    assert begun_with(newest, {"env": {"id": "countdown-v0"}}) is before
    for other in ({}, {"env": 5}, {"env": {"id": "nim-v0"}}, {"env": {"id": "countdown-v9"}}, {"env": {"id": "/x-v0"}}):
        assert begun_with(newest, other) is newest


def test_the_solver_is_always_given_the_same_problems() -> None:
    fresh = Problems(TASK, LEVELS, 0, {})
    first = fresh.worked(40, LEVELS, 0.5)
    later = fresh.next(12.0)
    again = Problems(TASK, LEVELS, 0, fresh.cursors)
    assert again.worked(40, LEVELS, 0.5) == first and {ask.bare for ask in first} == {True, False}
    assert again.next(12.0) > later


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2), st.integers(1, 4))
def test_cut_off_anywhere_no_problem_is_asked_twice(seed: int, ahead: int, prompts: int) -> None:
    """A loop like that of a run: rounds fly ahead, some groups are archived, then all but the checkpoint is lost."""
    luck = Random(seed)
    archive: dict[str, Ask] = {}
    saved = Problems(TASK, LEVELS, 0, {}).state([])
    saved_round = 0
    while saved_round < 8:
        found: dict[int, dict[str, Found]] = {}
        for name, ask in archive.items():
            number = int(name[1:7])
            if number >= saved_round:
                found.setdefault(number, {})[name] = Found(ask, ("accepted",))
        problems = Problems(TASK, LEVELS, 0, saved[0], found, saved[1])
        flying: dict[int, list[Ask]] = {}
        salt = luck.random()  # the curriculum is another after each crash

        def draw(rng: np.random.Generator, salt: float = salt) -> tuple[float, float]:
            return LEVELS[int((rng.random() + salt) * 2) % 2], 0.5

        for number in range(saved_round, saved_round + luck.randint(1, 4)):
            for launched in range(number, number + 1 + ahead):
                if launched not in flying:
                    flying[launched] = problems.round(launched, prompts, 2, draw)
            for ask in flying.pop(number):
                archive.setdefault(ask.group, ask)
                assert archive[ask.group] == ask, "a group was asked for with another problem"
            if luck.random() < 0.5:
                saved, saved_round = problems.state([ask for asks in flying.values() for ask in asks]), number + 1
        for asks in flying.values():  # the crash: of what was under way a part is archived
            for ask in asks:
                if luck.random() < 0.5:
                    archive.setdefault(ask.group, ask)
    learned = [ask for name, ask in archive.items() if int(name[1:7]) < saved_round]
    pairs = [(ask.difficulty, ask.seed) for ask in archive.values()]
    assert len(pairs) == len(set(pairs)), "a problem was asked for twice"
    assert len(learned) == saved_round * prompts


def test_what_does_not_fit_is_told_with_what_would() -> None:
    gib = 2**30
    refuse_too_large(Footprint(10**8, 10**8, "float32"), "cpu", 22 * gib)
    with pytest.raises(UserError, match=r"7 B parameters needs .* this GPU has 24 GiB: about .* parameters fit"):
        refuse_too_large(Footprint(7 * 10**9, 7 * 10**9, "bfloat16"), "cuda", 24 * gib)
    with pytest.raises(UserError, match="this one would fit with policy.dtype=bfloat16 with policy.lora_rank=16"):
        refuse_too_large(Footprint(10**9, 10**9, "float32"), "cuda", 16 * gib)
    with pytest.raises(UserError, match="this one would fit with policy.dtype=bfloat16$"):
        refuse_too_large(Footprint(10**9, 10**9, "float32"), "cuda", 25 * gib)
