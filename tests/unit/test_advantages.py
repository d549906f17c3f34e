"""Advantages, baselines and values against plain loops, exact policy gradients and bandits."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.reasoning.algorithms.grpo import GroupAdvantages, Overlong, group_advantages, overlong
from trainers.reasoning.algorithms.ppo import gae, terminal, value_loss, whitened
from trainers.reasoning.algorithms.rloo import leave_one_out
from trainers.reasoning.algorithms.role_conditioned import SeatBaselines
from trainers.reasoning.policy_loss import PolicyLoss, Size, policy_loss, size_of

NAN = float("nan")
torch.set_num_threads(1)
score = st.sampled_from([0.0, 1.0, 0.1, -0.7, NAN])
told = st.lists(st.tuples(score, st.integers(0, 3)), max_size=12)
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
same = {"rtol": 0, "atol": 1e-12}


def slow_group(rewards: list[float], groups: list[int], kind: str) -> tuple[list[float], list[float], float]:
    advantages, weights, mixed = [], [], {}
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        known = [r for r, g in zip(rewards, groups, strict=True) if g == group and not math.isnan(r)]
        if known:
            mixed[group] = len(set(known)) > 1
        if math.isnan(reward) or not mixed[group]:
            advantages.append(0.0)
            weights.append(0.0)
            continue
        others = [r for j, (r, g) in enumerate(zip(rewards, groups, strict=True))
                  if j != i and g == group and not math.isnan(r)]  # fmt: skip
        mean = sum(others) / len(others) if kind == "rloo" else sum(known) / len(known)
        scale = math.sqrt(sum((r - mean) ** 2 for r in known) / len(known)) + 1e-6 if kind == "normalised" else 1.0
        advantages.append((reward - mean) / scale)
        weights.append(1.0)
    return advantages, weights, sum(mixed.values()) / len(mixed) if mixed else 0.0


@pytest.mark.parametrize("kind", ["mean", "normalised", "rloo"])
@settings(max_examples=150, deadline=None)
@given(told=told)
def test_advantages_of_groups_equal_the_plain_ones(kind: str, told: list[tuple[float, int]]) -> None:
    rewards, groups = [reward for reward, _ in told], [group for _, group in told]
    arrays = np.array(rewards, np.float64), np.array(groups, np.int64)
    made = leave_one_out(*arrays) if kind == "rloo" else group_advantages(*arrays, normalise=kind == "normalised")
    advantages, weight, mixed = slow_group(rewards, groups, kind)
    np.testing.assert_allclose(made.advantages, advantages, **same)
    assert made.weight.tolist() == weight and made.mixed_share == mixed


def test_equal_rewards_and_crashed_verifiers_teach_nothing() -> None:
    rewards, groups = np.array([0.1, 0.1, 0.1, 1.0, NAN, 0.0, NAN, 1.0]), np.array([7, 7, 7, 1, 1, 1, 2, 3])
    for made in (group_advantages(rewards, groups), leave_one_out(rewards, groups)):
        assert made.weight.tolist() == [0, 0, 0, 1, 0, 1, 0, 0]
        assert made.advantages[3] > 0 > made.advantages[5] and made.mixed_share == 1 / 3
    with pytest.raises(ValueError, match="finite"):
        group_advantages(np.array([np.inf]), np.array([0]))


class Tree:
    """Four outcomes of one or two tokens; every probability is known, and so is the gradient of the expected reward."""

    rewards = np.array([0.3, 1.0, 0.0, 0.4])
    mask = torch.tensor([[True, False]] + [[True, True]] * 3)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.logits = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()

    def log_probs(self) -> Tensor:
        first, then = self.logits[:2].log_softmax(0), self.logits[2:].log_softmax(0)
        return torch.stack([torch.stack([first[0], first[0] * 0])] + [torch.stack([first[1], x]) for x in then])

    def gradient(self, scalar: Tensor) -> Tensor:
        return torch.autograd.grad(scalar, self.logits)[0]

    def exact(self) -> Tensor:
        return self.gradient((self.log_probs().sum(1).exp() * torch.tensor(self.rewards)).sum())

    def loss(self, rows: list[int], made: GroupAdvantages, weight: Tensor, how: PolicyLoss, size: Size) -> Tensor:
        new = self.log_probs()[rows]
        weight = weight * torch.tensor(made.weight)
        advantages = torch.tensor(made.advantages)
        return policy_loss(new, new, new, advantages, self.mask[rows], how, None, weight, size)[0]


def test_grpo_over_all_outcomes_is_the_exact_policy_gradient() -> None:
    """Each outcome once, by its probability: the mean of the group is then a constant, and a constant is no bias."""
    tree, rows = Tree(), [0, 1, 2, 3]
    chance = tree.log_probs().sum(1).exp().detach()
    size, exact = size_of(tree.mask, chance), tree.exact()
    assert size.sequences == pytest.approx(1)
    mean_only = group_advantages(tree.rewards, np.zeros(4, np.int64))

    def ascent(made: GroupAdvantages, how: PolicyLoss) -> Tensor:
        return -tree.gradient(tree.loss(rows, made, chance, how, size))

    torch.testing.assert_close(ascent(mean_only, PolicyLoss(average="constant", constant=2)) * 2, exact)
    torch.testing.assert_close(ascent(mean_only, PolicyLoss()) * size.tokens, exact)
    normalised = group_advantages(tree.rewards, np.zeros(4, np.int64), normalise=True)
    by_deviation = ascent(normalised, PolicyLoss(average="constant", constant=1)) * (tree.rewards.std() + 1e-6)
    torch.testing.assert_close(by_deviation, exact)
    of_lines = ascent(mean_only, PolicyLoss(average="sequence"))
    assert torch.cosine_similarity(of_lines, exact, 0) < 0.999, "the mean over a line's tokens favours short lines"


@pytest.mark.parametrize("samples", [2, 3])
def test_rloo_is_unbiased_and_grpo_shorter_by_its_own_share(samples: int) -> None:
    tree = Tree()
    chance, exact = tree.log_probs().sum(1).exp().detach(), tree.exact()
    how, size, groups = PolicyLoss(average="constant", constant=1), Size(0, samples), np.zeros(samples, np.int64)
    rloo = grpo = torch.zeros((), dtype=torch.float64)
    for rows in itertools.product(range(4), repeat=samples):
        probability, rewards, ones = chance[list(rows)].prod(), tree.rewards[list(rows)], torch.ones(samples)
        rloo = rloo + probability * tree.loss(list(rows), leave_one_out(rewards, groups), ones, how, size)
        grpo = grpo + probability * tree.loss(list(rows), group_advantages(rewards, groups), ones, how, size)
    torch.testing.assert_close(-tree.gradient(rloo), exact)
    torch.testing.assert_close(-tree.gradient(grpo), exact * (samples - 1) / samples)


def test_overlong() -> None:
    rewards, lengths = np.array([1.0, 1.0, 1.0, NAN, 0.0]), np.array([5, 8, 9, 10, 10])
    cut = np.array([False, False, False, True, True])
    kept = overlong(rewards, lengths, cut, Overlong())
    assert kept[0] is rewards and kept[1].tolist() == [1, 1, 1, 1, 1]
    assert overlong(rewards, lengths, cut, Overlong("mask"))[1].tolist() == [1, 1, 1, 0, 0]
    shaped, keep = overlong(rewards, lengths, cut, Overlong("penalty", limit=10, margin=4))
    np.testing.assert_allclose(shaped, [1.0, 0.5, 0.25, NAN, -1.0])
    assert keep.all()
    with pytest.raises(ValueError, match="margin"):
        Overlong("penalty", limit=10)


def lines(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and mask; values are NaN and rewards 0 where nothing was sampled."""
    shape = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    mask = torch.tensor(rng.random(shape) < rng.choice([0.3, 0.8, 1.0]))
    rewards, values = (torch.tensor(rng.normal(size=shape)) for _ in range(2))
    return rewards * mask, values.masked_fill(~mask, NAN), mask


@settings(max_examples=150, deadline=None)
@given(generators, st.sampled_from([0.0, 0.6, 1.0]), st.sampled_from([0.0, 0.9, 1.0]))
def test_gae_is_the_weighted_sum_of_surprises_over_sampled_tokens(
    rng: np.random.Generator, lam: float, gamma: float
) -> None:
    rewards, values, mask = lines(rng)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for i in range(len(mask)):
        at = [t for t in range(mask.shape[1]) if mask[i, t]]
        r, v = [float(rewards[i, t]) for t in at], [float(values[i, t]) for t in at] + [0.0]
        for k, t in enumerate(at):
            to_come = range(k, len(at))
            plain = sum((gamma * lam) ** (j - k) * (r[j] + gamma * v[j + 1] - v[j]) for j in to_come)
            assert float(advantages[i, t]) == pytest.approx(plain, abs=1e-9)
            assert float(returns[i, t]) == pytest.approx(plain + v[k], abs=1e-9)
            if lam == 1:
                assert float(returns[i, t]) == pytest.approx(sum(gamma ** (j - k) * r[j] for j in to_come), abs=1e-9)
            if lam == 0:
                assert float(returns[i, t]) == pytest.approx(r[k] + gamma * v[k + 1], abs=1e-9)
    assert not advantages[~mask].any() and not returns[~mask].any()


def test_the_reward_is_given_for_the_last_sampled_token() -> None:
    mask = torch.tensor([[False, True, False, True, False], [True, True, True, False, False], [False] * 5, [True] * 5])
    placed, weight = terminal(torch.tensor([2.0, NAN, 1.0, -1.0]), mask)
    assert placed.tolist() == [[0, 0, 0, 2, 0], [0] * 5, [0] * 5, [0, 0, 0, 0, -1]]
    assert weight.tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="not sampled"):
        gae(torch.ones(4, 5), torch.zeros(4, 5), mask)


@settings(max_examples=100, deadline=None)
@given(generators, st.sampled_from([None, 0.4]), st.integers(0, 4))
def test_value_loss_equals_the_plain_one(rng: np.random.Generator, clip: float | None, cut: int) -> None:
    returns, old, mask = lines(rng)
    weight = torch.tensor(rng.choice([0.0, 0.5, 2.0], len(mask)))
    new = (old + torch.tensor(rng.normal(0, 0.5, tuple(mask.shape)))).requires_grad_()
    size = size_of(mask, weight)
    loss, report = value_loss(new, old, returns, mask, clip, weight)
    loss.backward()
    expected, error, clipped, gradient = 0.0, 0.0, 0.0, np.zeros(tuple(mask.shape))
    for i, t in np.argwhere(mask.numpy()):
        count = float(weight[i]) / size.tokens if weight[i] else 0.0
        value, target, before = (float(x[i, t]) for x in (new.detach(), returns, old))
        own = kept = (value - target) ** 2
        if clip is not None:
            kept = (min(max(value, before - clip), before + clip) - target) ** 2
        expected += 0.5 * count * max(own, kept)
        gradient[i, t] = count * (value - target) if own >= kept else 0.0
        error, clipped = error + count * own, clipped + count * (kept > own)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(new.grad.numpy(), gradient, atol=1e-9)
    assert (new.grad[~mask] == 0).all()
    named = {"value_loss": expected, "value_error": error, "value_clip_share": clipped}
    assert {name: value.item() for name, value in report.items()} == pytest.approx(named, abs=1e-9)
    parts = [
        value_loss(new[at], old[at], returns[at], mask[at], clip, weight[at], size=size)[0].item()
        for at in (slice(0, cut), slice(cut, None))
    ]
    assert sum(parts) == pytest.approx(expected, abs=1e-9)


def test_whitened_advantages_have_mean_0_and_deviation_1_where_they_train() -> None:
    mask = torch.tensor([[False, True, True], [True, True, False], [True, True, True]])
    raw = torch.tensor([[NAN, 3.0, 5.0], [-1.0, 0.5, NAN], [90.0, NAN, 70.0]])
    white = whitened(raw, mask, torch.tensor([1.0, 2.0, 0.0]))
    known = torch.tensor([3.0, 5.0, -1.0, 0.5, -1.0, 0.5])
    expected = (known - known.mean()) / known.std(correction=0)
    torch.testing.assert_close(white[mask][:4], expected[:4])
    assert not white[~mask].any() and not white[2].any()


def test_a_seat_is_compared_with_what_it_used_to_get() -> None:
    rng = np.random.default_rng(4)
    envs, seats = rng.choice(["a-v0", "b-v1"], 60).tolist(), rng.integers(0, 2, 60).tolist()
    rewards = rng.choice([-1.0, 0.0, 1.0, NAN], 60)
    baselines, averages = SeatBaselines(), {}
    expected = []
    for key, reward in zip(zip(envs, seats, strict=True), rewards.tolist(), strict=True):
        average = averages.get(key, 0.0)
        expected.append(0.0 if math.isnan(reward) else reward - average)
        if not math.isnan(reward):
            averages[key] = 0.95 * average + 0.05 * reward
    first, _ = baselines.advantages(envs[:30], seats[:30], rewards[:30])
    restored = SeatBaselines.from_state(json.loads(json.dumps(baselines.state())))
    assert restored.state() == baselines.state()
    then, weight = restored.advantages(envs[30:], seats[30:], rewards[30:])
    np.testing.assert_allclose(np.concatenate([first, then]), expected, **same)
    assert weight.tolist() == (~np.isnan(rewards[30:])).astype(float).tolist()


@pytest.mark.parametrize("kind", ["grpo", "grpo normalised", "rloo", "ppo", "spiral"])
def test_a_bandit_is_learned(kind: str) -> None:
    """Four arms that pay 1 with these chances; the actor is an update behind, and each batch is used twice."""
    chances, rng = np.array([0.1, 0.5, 0.9, 0.3]), np.random.default_rng(0)
    logits, value = torch.zeros(4, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer, baselines = torch.optim.SGD([logits, value], lr=0.7), SeatBaselines()
    groups, mask = np.repeat(np.arange(8), 8), torch.ones(64, 1, dtype=torch.bool)
    acting = logits.detach().log_softmax(0)
    for _ in range(60):
        arms = rng.choice(4, 64, p=acting.exp().double().numpy() / float(acting.exp().double().sum()))
        rewards, weight = (rng.random(64) < chances[arms]).astype(np.float64), torch.ones(64)
        behaviour, proximal = acting[arms][:, None], logits.detach().log_softmax(0)[arms][:, None]
        acting = logits.detach().log_softmax(0)
        returns = old = value.detach().expand(64, 1)
        if kind == "ppo":
            placed, weight = terminal(torch.tensor(rewards, dtype=torch.float32), mask)
            advantages, returns = gae(placed, old, mask, gamma=0.99, lam=0.95)
        elif kind == "spiral":
            advantages = torch.tensor(baselines.advantages(["bandit"] * 64, [0] * 64, rewards)[0])
        else:
            normalise = kind == "grpo normalised"
            made = leave_one_out(rewards, groups) if kind == "rloo" else group_advantages(rewards, groups, normalise)
            advantages, weight = torch.tensor(made.advantages), torch.tensor(made.weight)
        for _ in range(2):
            new = logits.log_softmax(0)[arms][:, None]
            loss, _ = policy_loss(new, proximal, behaviour, advantages, mask, PolicyLoss(), weight=weight)
            loss = loss + value_loss(value.expand(64, 1), old, returns, mask, clip=None)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    chosen = logits.detach().softmax(0)
    assert chosen[2] > 0.85, chosen
    if kind == "ppo":
        assert value.item() == pytest.approx(0.86, abs=0.12)
