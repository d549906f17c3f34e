"""Every task of this project keeps the contract that `selfplay check-env` holds a stranger's to."""

from __future__ import annotations

import pytest

from selfplay.contract import TaskSpec
from selfplay.environments import registry
from selfplay.environments.checks.task_check import check_task

SHIPPED = [spec for spec in registry.all_specs() if isinstance(spec, TaskSpec)]


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.id)
def test_it_keeps_the_contract(spec: TaskSpec) -> None:
    report = check_task(spec)
    assert report.ok, [finding for finding in report.findings if finding.problem is not None]
    assert spec.summary.endswith((".", "?")) and (spec.solve is not None or spec.play is not None)


def test_tasks_are_listed_and_are_no_games() -> None:
    assert len(SHIPPED) >= 10
