"""An actor that cannot begin, for a reason that a person can mend, ends the run with that reason at once."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from selfplay.errors import UserError
from trainers.reasoning.workers import Staff


class Reasoner:
    def __init__(self) -> None:
        raise UserError("generation.engine = vllm needs the package vllm")

    @ray.method(num_returns=2)
    def work(self, asks: Any) -> tuple[Any, Any]:
        return None, None


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_its_sentence_is_told_and_no_other_is_tried(session: None) -> None:
    hired = []

    def reasoner(slot: str) -> Any:
        hired.append(slot)
        return ray.remote(Reasoner).remote()

    sizing, folder = SimpleNamespace(reasoners=1, joined=False), SimpleNamespace(run_id="run", amend=lambda **_: None)
    crew = SimpleNamespace(folder=folder, sizing=sizing, needs="core", reasoner=reasoner)
    staff = Staff(crew, SimpleNamespace(show=lambda: None, message=lambda text: None))  # type: ignore[arg-type]
    staff.begin()
    with pytest.raises(UserError, match="needs the package vllm"):
        staff.archive(staff.spread([SimpleNamespace(group="g", samples=1)], "work"))  # type: ignore[list-item]
    assert hired == ["r0000"]
