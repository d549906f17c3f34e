"""Positions with gaps: where they may stand, what they change, and that only imitation knows of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.errors import UserError
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.sampling import Sampling
from trainers.reasoning.algorithms.sft import gapped
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.learner import ReasoningLearner
from trainers.reasoning.token_batch import Lessons

torch.set_num_threads(1)
TOKENIZER = of_characters("0123456789+=")
SPEC = PolicySpec(None, small(TOKENIZER.size, 2, 32, 2, 64), TOKENIZER.files, 64)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 2**32))
def test_positions_rise_from_zero_and_stay_in_the_context(lengths: list[int], most: int, seed: int) -> None:
    lines = gapped(np.array(lengths), most, 64, np.random.default_rng(seed))
    for length, at in zip(lengths, lines, strict=True):
        assert at.dtype == np.int64 and at.shape == (length,)
        assert at[0] == 0 and at[-1] < 64
        assert (np.diff(at) >= 1).all() and (np.diff(at) <= most + 1).all()
        assert most or at[-1] == length - 1


def test_only_distances_count_and_no_gap_is_the_usual_place() -> None:
    model = fresh(SPEC, 1).model
    ids = torch.randint(2, TOKENIZER.size, (3, 20))
    usual = torch.arange(20).expand(3, 20)
    with torch.no_grad():
        wanted = model.hidden(ids)
        assert (model.hidden(ids, usual) - wanted).abs().max() < 1e-5
        assert (model.hidden(ids, usual + 17) - wanted).abs().max() < 1e-4
        assert (model.hidden(ids, usual * 3) - wanted).abs().max() > 1e-2


def test_imitation_takes_gaps_and_looking_does_not() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, TOKENIZER.size, size) for size in (12, 20, 31)]
    lessons = Lessons(ids, {"mask": [np.arange(len(one)) > 5 for one in ids]}, {}, {})
    learners = [ReasoningLearner(SPEC, LearnerSettings(gaps=gaps), Sampling(), 1, 0, 1) for gaps in (0, 5, 5)]
    plain, one, again = (learner.supervise(lessons.take(np.arange(3)), 1e-3)["nll"] for learner in learners)
    assert one == again != plain, "gaps follow from seed and step"
    for learner in learners[1:]:
        learner.learner.policy.from_arrays(learners[0].weights())
    looks = [np.concatenate(learner.look(lessons)["logprobs"]) for learner in learners]
    assert np.array_equal(looks[0], looks[1])


def test_a_line_as_long_as_the_context_has_no_gap() -> None:
    (line,) = gapped(np.array([64]), 9, 64, np.random.default_rng(0))
    assert np.array_equal(line, np.arange(64))


def test_models_that_place_tokens_themselves_refuse_gaps() -> None:
    from trainers.reasoning.actors import refuse_gaps
    from trainers.reasoning.config import PolicySettings, ReasoningConfig, TaskSettings

    config = ReasoningConfig(
        name="x", task=TaskSettings(id="parity"), policy=PolicySettings(), learner=LearnerSettings(gaps=3)
    )
    refuse_gaps(config, SPEC)
    with pytest.raises(UserError, match=r"learner\.gaps needs a model that this project's transformer computes"):
        refuse_gaps(config, PolicySpec("elsewhere", None, TOKENIZER.files, 64))
