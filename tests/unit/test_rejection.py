"""Which samples are imitated, how much they weigh, and when problems get harder."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.reasoning.algorithms.expert_iteration import Gate, Kept, Sample, keep

NAN = float("nan")
samples = st.lists(
    st.builds(
        Sample,
        st.sampled_from(["p", "q", "r"]),
        st.lists(st.integers(0, 2), max_size=4).map(tuple),
        st.sampled_from([1.0, 1.0, 0.0, 0.5, NAN]),
    ),
    max_size=40,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=200, deadline=None)
@given(samples, st.integers(1, 5), st.integers(0, 3))
def test_what_is_kept(given_samples: list[Sample], cap: int, seed: int) -> None:
    kept = keep(given_samples, rng(seed), cap)
    texts = [(k.sample.problem, k.sample.tokens) for k in kept]
    assert len(set(texts)) == len(texts), "a text once"
    for problem in {sample.problem for sample in given_samples}:
        judged = [s for s in given_samples if s.problem == problem and s.reward == s.reward]
        good = {s.tokens for s in judged if s.reward >= 1}
        bad = {s.tokens for s in judged if s.reward < 1}
        mine = [k for k in kept if k.sample.problem == problem]
        assert {k.sample.tokens for k in mine} <= good - bad, "verified, and never otherwise"
        assert len(mine) == min(cap, len(good - bad))
        for k in mine:
            assert k.sample.reward >= 1
            assert k.solve_rate == sum(s.reward >= 1 for s in judged) / len(judged)
            assert k.weight == max(0.1, 1 - k.solve_rate)
        lengths = {len(tokens) for tokens in good - bad}
        assert len({len(k.sample.tokens) for k in mine}) == min(cap, len(lengths)), "as many lengths as there are"


@settings(max_examples=60, deadline=None)
@given(samples, st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_samples(
    given_samples: list[Sample], cap: int, shuffler: random.Random
) -> None:
    mixed = list(given_samples)
    shuffler.shuffle(mixed)
    assert keep(mixed, rng(), cap) == keep(given_samples, rng(), cap)


def test_the_hard_weighs_more_and_the_easy_still_something() -> None:
    hard = [Sample("hard", (1,), 1.0, 9)] + [Sample("hard", (0, n), 0.0, 9) for n in range(9)]
    easy = [Sample("easy", (n,), 1.0) for n in range(3)]
    crashed = [Sample("hard", (8,), NAN, 9), Sample("lost", (8,), NAN)]
    assert keep(hard + easy + crashed, rng(), floor=0.2) == [
        *(Kept(sample, 0.2, 1.0) for sample in easy),
        Kept(hard[0], 0.9, 0.1),
    ]


def test_of_texts_of_one_length_those_that_differ_most_are_taken() -> None:
    alike = [(0, 0, 0, 0, n) for n in range(8)]
    unlike = (9, 9, 9, 9, 9)
    for seed in range(10):
        taken = {k.sample.tokens for k in keep([Sample("p", t, 1.0) for t in [*alike, unlike]], rng(seed), cap=2)}
        assert unlike in taken
    drawn = {keep([Sample("p", t, 1.0) for t in alike], rng(seed), cap=1)[0].sample.tokens for seed in range(40)}
    assert len(drawn) > 4, "the generator decides"


def test_a_lower_bar_takes_partial_credit() -> None:
    assert [k.sample.reward for k in keep([Sample("p", (1,), 0.5)], rng(), accept=0.5)] == [0.5]
    with pytest.raises(ValueError, match="cap must be at least 1"):
        keep([], rng(), cap=0)
    with pytest.raises(ValueError, match="floor in"):
        keep([], rng(), floor=0.0)


def test_the_gate_opens_at_the_threshold_and_not_before() -> None:
    gate = Gate(level=3, highest=4, threshold=0.75, least=4)
    assert gate.after([1, 1, 1]) == gate, "too few"
    assert gate.after([1, 1, 1, NAN, NAN]) == gate, "what could not be judged is not counted"
    assert gate.after([1, 1, 0, 0.9]) == gate
    opened = gate.after([1, 1, 0, 1, NAN])
    assert opened.level == 4 and opened.after([1] * 9) == opened
    assert Gate.from_state(json.loads(json.dumps(opened.state()))) == opened
    with pytest.raises(ValueError, match="threshold"):
        Gate(1, 2, threshold=0.0)
