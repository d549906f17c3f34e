"""What runs where: text of a model only in a confined process, and problems of any size only in a limited one."""

from __future__ import annotations

import json
import math

import pytest

from selfplay.environments.isolation import wire
from selfplay.environments.registry import find_task
from selfplay.environments.task import Task
from selfplay.errors import UserError


def test_a_process_that_is_not_confined_reads_nothing_that_a_model_wrote() -> None:
    spec = find_task("addition")
    posed = Task(spec).pose(1, 2.0)
    problem, said = wire.problem_to(posed.problem), wire.transcript_to(posed.opening)
    arguments = {
        "poses": [[[1, 2.0]]],
        "prompt": [problem],
        "gold": [problem],
        "solve": [problem],
        "respond": [problem, posed.digest, said],
        "judge": [problem, said],
    }
    for name, given in arguments.items():
        answer = json.loads(wire.answered(spec, wire.encode([name, given]), "there is no filter"))
        refused = name in ("respond", "judge")
        assert ("failed" in answer) == refused, name
        if refused:
            assert answer["failed"] == [
                "unconfined",
                f"{spec.id}: an answer cannot be read safely here: there is no filter",
            ]
    assert {name for name, call in wire.CALLS.items() if call.reads_answers} == {"respond", "judge"}


@pytest.mark.parametrize("difficulty", [math.inf, -math.inf, math.nan])
def test_there_are_no_problems_of_no_level(difficulty: float) -> None:
    with pytest.raises(UserError, match="no problem of difficulty"):
        Task(find_task("addition")).pose(1, difficulty)


def test_a_level_beyond_all_that_are_declared_is_made_with_limits() -> None:
    """A row of an archive may name any; in this process it would take all of the memory."""
    task = Task(find_task("addition"))
    try:
        task.pose(1, max(task.spec.difficulties))
        assert task.host._server is None, "here, as the task is not isolated"
        assert len(task.pose(1, max(task.spec.difficulties) + 2).messages) == 1
        assert task.host._server is not None, "and there"
    finally:
        task.close()
