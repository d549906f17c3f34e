"""Answers that no policy sampled, as episodes."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")

from selfplay.environments import registry  # noqa: E402
from selfplay.environments.task import Task, ruleset_digest  # noqa: E402
from selfplay.episode import Provenance, to_batch  # noqa: E402
from selfplay.nets.language.tokenizer import of_characters  # noqa: E402
from selfplay.rollout.recorder import Assignment, Recorder  # noqa: E402
from selfplay.store.corpus.tokens import sequences_from  # noqa: E402
from selfplay.store.verify.verify import Rules, verify_episode  # noqa: E402

TOKENIZER = of_characters(map(chr, range(10, 127)))


def test_a_worked_answer_is_judged_and_can_be_imitated() -> None:
    spec = registry.find_task("countdown")
    task = Task(spec)
    rules = ruleset_digest(spec)
    provenance = Provenance("run", spec.id, spec.version, rules, "b" * 64, "0.1", "here", "CC0-1.0", None, "cot_rl")
    keeper, work = Recorder(provenance, "a", 1, task, 40), Assignment(task.pose(0, spec.difficulties[0]), "g", 0)
    assert spec.solve is not None
    right, wrong = (keeper.worked(work, text, TOKENIZER) for text in (spec.solve(work.posed.problem), "#1"))
    assert (right.returns, wrong.returns, right.number, wrong.number) == ((1.0,), (0.0,), 40, 41)
    assert right.provenance.origin == "solver" and verify_episode(right, Rules([])).state == "true"
    (line,) = sequences_from(to_batch([right])).lines
    told = TOKENIZER.opening(work.posed.messages)
    assert TOKENIZER.decode(line.ids[line.loss_mask].tolist()) == spec.solve(work.posed.problem)
    assert line.ids[: len(told)].tolist() == told and line.ids[-1] == TOKENIZER.eos[0] and not line.logprobs.any()
    task.close()


def test_a_clock_that_is_set_does_not_change_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1.8e9]

    def set_back() -> float:
        clock[0] -= 3600
        return clock[0]

    spec = registry.find_task("parity")
    task = Task(spec)
    provenance = Provenance("run", spec.id, spec.version, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0", None, "cot_rl")
    work = Assignment(task.pose(0, spec.difficulties[0]), "g", 0)
    monkeypatch.setattr(time, "time", set_back)
    episode = Recorder(provenance, "a", 1, task).worked(work, "#1", TOKENIZER)
    assert episode.started_at < 1_800_000_000_000_000 and 0 <= episode.wall_ms < 600_000
    task.close()
