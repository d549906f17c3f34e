"""The one writer of scalars."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainers.run.metrics import ScalarWriter, wandb_safe


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_scalars_reach_both_and_the_id_is_kept(tmp_path: Path) -> None:
    told: list[str] = []
    for run_id, step in (("run/1", 10), ("another", 20)):
        writer = ScalarWriter(tmp_path, run_id, {"seed": 1}, told.append)
        assert writer.wandb_id == "run-1"
        writer.write(step, {"learner/loss": step / 10, "broken": float("nan")})
        writer.close()
        writer.close()
    assert told == []
    assert scalars(tmp_path) == {"learner/loss": [(10, 1.0), (20, 2.0)]}
    assert len(list((tmp_path / "wandb").glob("offline-run-*-run-1"))) >= 1


def test_steps_never_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    writer = ScalarWriter(tmp_path, "x", {})
    writer.write(10, {"a": 1.0})
    writer.write(5, {"a": 2.0})
    writer.close()
    assert [step for step, _ in scalars(tmp_path)["a"]] == [10, 10]


def test_a_tracker_that_fails_is_reported_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    told: list[str] = []
    writer = ScalarWriter(tmp_path, "x", {}, told.append)
    writer.write(1, {"a": 1.0})
    writer.close()
    assert len(told) == 1 and told[0].startswith("scalars no longer go to wandb: ")
    assert "a" in scalars(tmp_path)


def test_wandb_safe() -> None:
    assert wandb_safe("connect four/1:a") == "connect-four-1-a"
