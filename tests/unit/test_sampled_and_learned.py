"""A learner computes of an archived sample what its actor drew it with; small steps count; held out stays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfplay.environments import registry
from selfplay.environments.task import Task, ruleset_digest
from selfplay.episode import Episode, Provenance, to_batch
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.dialogue import Assignment, Dialogues, Recorder, Speaker
from selfplay.rollout.sampling import Sampling
from selfplay.store import Committer, write_block
from trainers.reasoning.config import LearnerSettings, PolicySettings, ReasoningConfig, TaskSettings
from trainers.reasoning.learner import ReasoningLearner
from trainers.reasoning.learner_actor import Tutor, TutorJob
from trainers.reasoning.token_batch import lessons_from

torch.set_num_threads(1)
TASK = Task(registry.find_task("guess_number"))
PARITY = Task(registry.find_task("parity"))


def spec_of(characters: str, dtype: str = "float32") -> PolicySpec:
    tokenizer = of_characters(characters)
    return PolicySpec(None, small(tokenizer.size, 2, 32, 2, 256), tokenizer.files, 256, dtype=dtype)


def recorder(task: Task, origin: str = "cot_rl") -> Recorder:
    spec = task.spec
    told = Provenance("run", spec.id, 0, ruleset_digest(spec), "b" * 64, "0.1", "here", "CC0-1.0", origin=origin)
    return Recorder(told, "r0000", 1, task)


def sampled(spec: PolicySpec, sampling: Sampling) -> tuple[list[Episode], dict[str, np.ndarray]]:
    """Dialogues of several turns by a policy whose distribution is far from even, and its weights."""
    policy = fresh(spec, 3)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight.mul_(20)
    engine = ContinuousEngine(policy, rows=8, seed=1)
    speaker = Speaker(engine, policy.tokenizer, "run", "d" * 64, spec.context)
    works = [Assignment(TASK.pose(seed, 4), f"r000000-{seed:04d}", 0) for seed in range(24)]
    return list(Dialogues(recorder(TASK), {0: speaker}, sampling).hold(works)), policy.to_arrays()


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.35)]
)  # the second: two roundings of logits as large as 30
@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7), Sampling(1.3, top_k=5), Sampling(1.0, top_p=0.8)])
def test_recomputed_is_sampled(sampling: Sampling, dtype: str, bound: float) -> None:
    sampling = replace(sampling, max_tokens=12)
    spec = spec_of("".join(map(chr, range(32, 127))), dtype)
    episodes, weights = sampled(spec, sampling)
    lessons = lessons_from(to_batch(episodes))
    learner = ReasoningLearner(spec, LearnerSettings(micro_tokens=256), sampling, 1, 0, 1)
    learner.learner.policy.from_arrays(weights)
    now = learner.look(lessons)["logprobs"]
    apart = []
    for mask, drawn, again in zip(lessons.tokens["mask"], lessons.tokens["behaviour"], now, strict=True):
        assert mask.any() and (again[~mask] == 0).all()
        apart.append(np.abs(again - drawn)[mask])
    worst, mean = np.concatenate(apart).max(), np.concatenate(apart).mean()
    if dtype == "bfloat16" and sampling.top_k is None and sampling.top_p is None:
        assert mean < bound, "on average; single tokens of small probability are further apart"
    elif dtype == "float32":
        assert worst < bound


def test_steps_smaller_than_bfloat16_can_show_add_up() -> None:
    spec = spec_of("01=", "bfloat16")
    rng = np.random.default_rng(0)
    seal, tokenizer = recorder(PARITY, "solver"), fresh(spec, 0).tokenizer
    worked = [
        seal.worked(Assignment(PARITY.pose(seed, 8), f"w{seed:06d}", 0), "01", tokenizer)
        for seed in rng.integers(0, 10_000, 8).tolist()
    ]
    lessons = lessons_from(to_batch(worked))
    learner = ReasoningLearner(spec, LearnerSettings(), Sampling(), 1, 0, 1)
    before = learner.weights()
    for _ in range(3):
        learner.supervise(lessons, 1e-6)
    after = learner.weights()
    moved = [np.mean(before[name] != after[name]) for name in before if before[name].ndim == 2]
    assert min(moved) > 0.5, "a step of 1e-6 left most weights as they were"


@pytest.mark.parametrize(("algorithm", "kept"), [("grpo", False), ("ppo", False), ("expert", True)])
def test_moments_of_imitation_do_not_scale_the_first_steps_of_reinforcement(algorithm: str, kept: bool) -> None:
    spec = replace(spec_of("01="), value_head=algorithm == "ppo")
    seal, tokenizer = recorder(PARITY, "solver"), fresh(spec, 0).tokenizer
    worked = [seal.worked(Assignment(PARITY.pose(seed, 8), f"w{seed:06d}", 0), "01", tokenizer) for seed in range(8)]
    learner = ReasoningLearner(spec, LearnerSettings(algorithm=algorithm), Sampling(), 1, 0, 1)
    learner.supervise(lessons_from(to_batch(worked)), 1e-3)
    assert any(name.startswith("exp_avg") for name in learner.learner.state())
    learner.begin_reference()
    assert any(name.startswith("exp_avg") for name in learner.learner.state()) == kept


def archive(uri: str, episodes: Sequence[Episode]) -> None:
    committer = Committer(uri, "run", 1)
    registration = committer.register("r0000")
    assert registration.epoch is not None
    rows = [replace(episode, epoch=registration.epoch) for episode in episodes]
    committer.commit([write_block(uri, to_batch(rows), "r0000", registration.epoch, registration.next_number)])


def test_what_is_only_measured_on_is_imitated_from_no_corpus(tmp_path: Path) -> None:
    """Whoever made that corpus may have thought otherwise of its problems."""
    uri, spec, seal = str(tmp_path / "corpus"), spec_of("01="), recorder(PARITY, "human")
    tokenizer = fresh(spec, 0).tokenizer
    solve = PARITY.spec.solve
    assert solve is not None
    posed = [PARITY.pose(seed, 12) for seed in range(120)]
    told = [Assignment(one, "h", index) for index, one in enumerate(posed)]
    archive(uri, [seal.worked(one, solve(one.posed.problem), tokenizer, "human") for one in told])
    config = ReasoningConfig(name="x", task=TaskSettings(id="parity"), policy=PolicySettings())
    tutor = Tutor(TutorJob(spec.to_json(), config.to_json(), 1, 1, str(tmp_path), uri, "student"))
    assert all(episode.trainable for episode in [seal.worked(Assignment(posed[0], "h", 0), "1", tokenizer)])
    known = tutor.take_corpus(uri, "parity-v0", 1000)
    wanted = {one.digest for one in posed if one.side == "training"}
    assert 0 < known == len(wanted) < len(posed)
    assert set(tutor._base.names["problem"]) == wanted
