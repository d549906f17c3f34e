"""From archived episodes to a step: every line once, what nobody could judge never, and the right sign for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.sampling import Sampling
from trainers.reasoning.advantages import prepare
from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.token_batch import Lessons

torch.set_num_threads(1)


def lessons(rewards: list[float], groups: list[str], length: int = 6, prompt: int = 3) -> Lessons:
    rng = np.random.default_rng(0)
    n = len(rewards)
    ids = [rng.integers(2, 6, length + i % 3) for i in range(n)]
    return Lessons(
        ids,
        {"mask": [np.arange(len(x)) >= prompt for x in ids], "behaviour": [np.zeros(len(x), np.float32) for x in ids]},
        {
            "reward": np.array(rewards),
            "seat": np.zeros(n, np.int64),
            "level": np.ones(n),
            "cut": np.zeros(n, bool),
            "length": np.array([len(x) - prompt for x in ids]),
        },
        {"group": groups, "problem": groups, "episode": [str(i) for i in range(n)], "env": ["x-v0"] * n},
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(64, 4096))
def test_micro_batches_hold_every_line_once_and_no_more_than_they_may(lengths: list[int], most: int) -> None:
    some = Lessons([np.full(n, i + 1) for i, n in enumerate(lengths)], {"mask": [np.ones(n, bool) for n in lengths]})
    seen: list[int] = []
    for places, batch in some.micro_batches(most):
        assert batch["ids"].shape == batch["mask"].shape
        assert len(places) == 1 or batch["ids"].numel() <= most
        for row, place in enumerate(places.tolist()):
            assert batch["ids"][row].tolist()[: lengths[place]] == [place + 1] * lengths[place]
            assert int(batch["mask"][row].sum()) == lengths[place]
        seen += places.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def look(chosen: Lessons) -> dict[str, list[Any]]:
    zeros = [np.zeros(len(x), np.float32) for x in chosen.ids]
    return {"logprobs": zeros, "values": zeros}


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_what_nobody_could_judge_is_left_out_and_is_no_zero(algorithm: Any) -> None:
    nan = float("nan")
    some = lessons([1.0, nan, 1.0, 0.0, nan, nan, 1.0, 1.0], ["a", "a", "a", "a", "b", "b", "c", "c"])
    ready = prepare(some, LearnerSettings(algorithm=algorithm), 16, look, SeatBaselines(), 1)
    left = set(ready.lessons.names["episode"])
    assert not left & {"1", "4", "5"}
    if algorithm != "ppo":
        assert left == {"0", "2", "3"}, "a group whose rewards are all alike teaches nothing"
        signs = dict(zip(ready.lessons.names["episode"], np.sign(ready.lessons.numbers["advantage"]), strict=True))
        assert signs == {"0": 1.0, "2": 1.0, "3": -1.0}
    assert ready.report["unverifiable"] == 3 / 8 and ready.report["reward"] == 4 / 5


def test_ppo_gives_the_reward_to_the_tokens_that_were_sampled() -> None:
    some = lessons([1.0, 0.0], ["a", "b"])
    ready = prepare(some, LearnerSettings(algorithm="ppo", lam=1.0), 16, look, SeatBaselines(), 1)
    for row, mask in enumerate(ready.lessons.tokens["mask"]):
        returns = ready.lessons.tokens["returns"][row]
        assert (returns[mask] == (1.0, 0.0)[row]).all() and (returns[~mask] == 0).all()
        advantages = ready.lessons.tokens["advantages"][row]
        assert (np.sign(advantages[mask]) == (1.0, -1.0)[row]).all() and (advantages[~mask] == 0).all()


def test_a_step_raises_what_was_rewarded_and_not_what_was_asked() -> None:
    from trainers.reasoning.learner import ReasoningLearner

    tokenizer = of_characters("0123")
    spec = PolicySpec(None, small(tokenizer.size, 1, 16, 1, 32), tokenizer.files, 32)
    learner = ReasoningLearner(spec, LearnerSettings(), Sampling(max_tokens=16), 1, 0, 1)
    some = lessons([1.0, 0.0], ["a", "a"])
    before = learner.look(some)["logprobs"]
    some.tokens["behaviour"] = before
    learner.begin_reference()
    report = learner.reinforce(some, 0, 1e-2)
    after = learner.look(some)["logprobs"]
    mask = some.tokens["mask"]
    assert after[0][mask[0]].sum() > before[0][mask[0]].sum()
    assert after[1][mask[1]].sum() < before[1][mask[1]].sum()
    assert report["ratio"] == pytest.approx(1.0) and report["clip_share"] == 0.0
    kept = learner.learner.state()
    learner.reinforce(some, 1, 1e-2)
    learner.learner.load_state(kept)
    again = learner.look(some)["logprobs"]
    assert all(np.array_equal(a, b) for a, b in zip(after, again, strict=True))
