"""The policy loss and imitation against plain loops with gradients by hand, on random batches with rubbish between."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.reasoning.algorithms.sft import sft_loss
from trainers.reasoning.policy_loss import FARTHEST, PolicyLoss, Size, k3, merged, policy_loss, size_of

NAN = float("nan")
torch.set_num_threads(1)


@dataclass(frozen=True)
class Batch:
    """Float64; NaN wherever the mask is False, so that whatever leaks out of there is seen."""

    new: Tensor
    proximal: Tensor
    behaviour: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor
    weight: Tensor | None

    def lines(self, at: slice) -> Batch:
        """A micro-batch, with leaves of its own."""
        cut = {name: None if part is None else part[at] for name, part in vars(self).items()}
        return Batch(**(cut | {"new": self.new.detach()[at].clone().requires_grad_()}))

    def loss(self, how: PolicyLoss, size: Size | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        arrays = (self.new, self.proximal, self.behaviour, self.advantages, self.mask)
        return policy_loss(*arrays, how, self.reference, self.weight, size)


def random_batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    lines, tokens = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    mask = torch.tensor(rng.random((lines, tokens)) < rng.choice([0.0, 0.5, 0.9, 1.0]))

    def masked(values: np.ndarray) -> Tensor:
        return torch.tensor(values).masked_fill(~mask, NAN)

    new = -rng.exponential(2.0, (lines, tokens))
    near, far, other = (new + rng.normal(0, spread, new.shape) for spread in (0.3, 0.8, 0.5))
    advantages = rng.normal(size=(lines, tokens))
    by_line = bool(rng.integers(2))
    weight = torch.tensor(rng.choice([0.0, 0.5, 1.0, 3.0], lines)) if rng.integers(2) else None
    wide = torch.tensor(advantages[:, 0]) if by_line else masked(advantages)
    leaf = masked(new).requires_grad_()
    return Batch(leaf, masked(near), masked(far), masked(other), wide, mask, weight)


seeds = st.integers(0, 2**32 - 1).map(random_batch)
averages = st.sampled_from([("token", None), ("sequence", None), ("constant", 5)])
chosen = st.builds(
    lambda average, cap, kl: PolicyLoss(0.2, 0.28, average[0], average[1], cap, kl),
    averages, st.sampled_from([None, 0.7, 2.0]), st.sampled_from([0.0, 0.3]),
)  # fmt: skip


def shares(b: Batch, average: str, constant: int | None) -> tuple[list[float], list[float]]:
    """What a token of each line counts in the loss, and in the means that are reported."""
    weights = [1.0] * len(b.mask) if b.weight is None else b.weight.tolist()
    lengths = b.mask.sum(1).tolist()
    tokens = sum(w * n for w, n in zip(weights, lengths, strict=True))
    sequences = sum(w for w, n in zip(weights, lengths, strict=True) if n)
    counts = []
    for w, n in zip(weights, lengths, strict=True):
        below = {"token": tokens, "sequence": n * sequences, "constant": (constant or 0) * sequences}[average]
        counts.append(w / below if w and n else 0.0)
    return counts, [w / tokens if w and n else 0.0 for w, n in zip(weights, lengths, strict=True)]


def slow(b: Batch, how: PolicyLoss) -> tuple[float, np.ndarray, dict[str, float]]:
    """Loss, its gradient with respect to `new`, and report: one token after the other, from the papers."""
    counts, means = shares(b, how.average, how.constant)
    report = dict.fromkeys(("loss", "clip_share", "ratio", "importance", "mismatch", "ratio_max", "kl"), 0.0)
    gradient = np.zeros(tuple(b.mask.shape))
    for i, t in np.argwhere(b.mask.numpy()):
        if not means[i]:
            continue
        new, old, acted, other = (float(x[i, t]) for x in (b.new.detach(), b.proximal, b.behaviour, b.reference))
        advantage = float(b.advantages[i] if b.advantages.dim() == 1 else b.advantages[i, t])
        ratio, importance = math.exp(new) / math.exp(old), 1.0
        if how.importance_cap is not None:
            importance = min(math.exp(old) / math.exp(acted), how.importance_cap)
        if advantage > 0 and ratio > 1 + how.clip_high:
            surrogate, slope, stopped = (1 + how.clip_high) * advantage, 0.0, True
        elif advantage < 0 and ratio < 1 - how.clip_low:
            surrogate, slope, stopped = (1 - how.clip_low) * advantage, 0.0, True
        else:
            surrogate, slope, stopped = ratio * advantage, ratio * advantage, False
        kl = math.exp(other) / math.exp(new) - (other - new) - 1
        report["loss"] += counts[i] * (-importance * surrogate + how.kl_coef * kl)
        gradient[i, t] = counts[i] * (-importance * slope + how.kl_coef * (1 - math.exp(other) / math.exp(new)))
        report["clip_share"] += means[i] * stopped
        report["ratio"] += means[i] * ratio
        report["importance"] += means[i] * importance
        report["mismatch"] += means[i] * (math.exp(old) / math.exp(acted) - (old - acted) - 1)
        report["kl"] += means[i] * kl
        report["ratio_max"] = max(report["ratio_max"], ratio)
    return report["loss"], gradient, report


@settings(max_examples=150, deadline=None)
@given(seeds, chosen)
def test_policy_loss_equals_the_plain_one(b: Batch, how: PolicyLoss) -> None:
    loss, report = b.loss(how)
    loss.backward()
    expected, gradient, reported = slow(b, how)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(b.new.grad.numpy(), gradient, atol=1e-9)
    assert {name: value.item() for name, value in report.items()} == pytest.approx(reported, abs=1e-9)
    assert not any(value.requires_grad for value in report.values())


@settings(max_examples=60, deadline=None)
@given(seeds, chosen)
def test_nothing_outside_the_mask_has_a_gradient(b: Batch, how: PolicyLoss) -> None:
    b.loss(how)[0].backward()
    assert (b.new.grad[~b.mask] == 0).all()
    if b.weight is not None:
        assert (b.new.grad[b.weight == 0] == 0).all()


@settings(max_examples=80, deadline=None)
@given(seeds, chosen, st.integers(0, 5))
def test_micro_batches_add_up_to_the_batch(b: Batch, how: PolicyLoss, cut: int) -> None:
    whole, report = b.loss(how)
    whole.backward()
    size = size_of(b.mask, b.weight)
    parts = [b.lines(at) for at in (slice(0, cut), slice(cut, None))]
    assert sum((size_of(p.mask, p.weight) for p in parts), Size(0, 0)) == size
    made = [part.loss(how, size) for part in parts]
    for loss, _ in made:
        loss.backward()
    assert sum(loss.item() for loss, _ in made) == pytest.approx(whole.item(), abs=1e-9)
    torch.testing.assert_close(torch.cat([part.new.grad for part in parts]), b.new.grad)
    together = merged([partial for _, partial in made])
    assert {n: v.item() for n, v in together.items()} == pytest.approx({n: v.item() for n, v in report.items()})


@settings(max_examples=80, deadline=None)
@given(seeds, averages, st.integers(0, 5))
def test_sft_equals_the_plain_one_and_its_micro_batches(
    b: Batch, average: tuple[str, int | None], cut: int
) -> None:
    loss, report = sft_loss(b.new, b.mask, b.weight, average[0], average[1])  # type: ignore[arg-type]
    loss.backward()
    counts, means = shares(b, *average)
    gradient, expected, nll = np.zeros(tuple(b.mask.shape)), 0.0, 0.0
    for i, t in np.argwhere(b.mask.numpy()):
        expected -= counts[i] * b.new[i, t].item()
        nll -= means[i] * b.new[i, t].item()
        gradient[i, t] = -counts[i]
    assert loss.item() == report["loss"].item() == pytest.approx(expected, abs=1e-9)
    assert report["nll"].item() == pytest.approx(nll, abs=1e-9)
    np.testing.assert_allclose(b.new.grad.numpy(), gradient, atol=1e-12)
    size, total = size_of(b.mask, b.weight), 0.0
    for part in (b.lines(slice(0, cut)), b.lines(slice(cut, None))):
        total += sft_loss(part.new, part.mask, part.weight, *average, size)[0].item()  # type: ignore[arg-type]
    assert total == pytest.approx(expected, abs=1e-9)


def one(new: float, advantage: float, how: PolicyLoss, old: float = -1.0, acted: float = -1.0) -> tuple[float, float]:
    """Loss and gradient of a single token."""
    leaf = torch.tensor([[new]], requires_grad=True)
    full = torch.ones(1, 1, dtype=torch.bool)
    told = torch.tensor([[old]], requires_grad=True), torch.tensor([[acted]], requires_grad=True)
    loss, _ = policy_loss(leaf, *told, torch.tensor([advantage]), full, how)
    loss.backward()
    assert all(t.grad is None for t in told)
    return loss.item(), leaf.grad.item()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_good_token_gets_likelier_and_a_bad_one_less_likely(advantage: float) -> None:
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    new = logits.log_softmax(2)[:, :, 2]
    loss, _ = policy_loss(new, new, new, torch.tensor([advantage]), torch.ones(1, 1, dtype=torch.bool), PolicyLoss())
    loss.backward()
    moved = (logits - logits.grad).log_softmax(2)[0, 0]
    assert (moved[2] > math.log(0.25)) == (advantage > 0)
    assert (moved[0] > math.log(0.25)) == (advantage < 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [
        (1.27, 1.0, 1.27, 1.27), (1.29, 1.0, 1.28, 0.0), (1.29, -1.0, -1.29, -1.29), (5.0, -1.0, -5.0, -5.0),
        (0.81, -1.0, -0.81, -0.81), (0.79, -1.0, -0.8, 0.0), (0.79, 1.0, 0.79, 0.79), (0.1, 1.0, 0.1, 0.1),
    ],
)  # fmt: skip
def test_the_clip_stops_what_went_far_enough(ratio: float, advantage: float, surrogate: float, slope: float) -> None:
    loss, gradient = one(-1 + math.log(ratio), advantage, PolicyLoss())
    assert (-loss, -gradient) == pytest.approx((surrogate, slope), abs=1e-5)


def test_what_the_actor_would_sample_too_seldom_weighs_more_up_to_the_cap() -> None:
    at = PolicyLoss(importance_cap=2.0)
    assert one(-1.0, 1.0, at, acted=-1 - math.log(1.5)) == pytest.approx((-1.5, -1.5), abs=1e-6)
    assert one(-1.0, 1.0, at, acted=-1 - math.log(3)) == pytest.approx((-2, -2), abs=1e-6)
    assert one(-1.0, 1.0, at, acted=-1 + math.log(4)) == pytest.approx((-0.25, -0.25), abs=1e-6)
    assert one(-1.0, 1.0, PolicyLoss(importance_cap=None), acted=-3.0) == pytest.approx((-1, -1), abs=1e-6)


def test_k3_is_in_expectation_one_kl_and_its_gradient_that_of_the_other() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, fixed = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    log_p, log_q = logits.log_softmax(0), fixed.log_softmax(0)
    p, q = log_p.exp(), log_q.exp()
    mean = (p.detach() * k3(log_p, log_q, torch.ones(5, dtype=torch.bool))).sum()
    assert mean.item() == pytest.approx((p * (log_p - log_q)).sum().item())
    (of_mean,) = torch.autograd.grad(mean, logits, retain_graph=True)
    (of_forward,) = torch.autograd.grad((q * (log_q - log_p)).sum(), logits)
    torch.testing.assert_close(of_mean, of_forward)


def test_nothing_to_train_is_a_loss_of_zero() -> None:
    b = random_batch(3)
    for empty in (replace(b, mask=b.mask & False), replace(b, weight=torch.zeros(len(b.mask)))):
        loss, report = empty.loss(PolicyLoss(kl_coef=0.1, average="sequence"))
        b.new.grad = None
        loss.backward()
        assert loss.item() == 0 and not b.new.grad.any()
        assert all(value.item() == 0 for value in report.values())


def test_log_probs_that_are_far_apart_stay_finite() -> None:
    loss, gradient = one(-1.0, -1.0, PolicyLoss(), old=-900.0, acted=-900.0)
    assert loss == pytest.approx(math.exp(FARTHEST), rel=1e-5) and gradient == 0


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"clip_low": 1.5}, "clip_low must be in"),
        ({"importance_cap": 0.0}, "positive or None"),
        ({"kl_coef": -1.0}, "kl_coef must be at least 0"),
        ({"average": "constant"}, "needs constant"),
        ({"constant": 4}, "has no meaning"),
        ({"average": "tokens"}, "must be one of token, sequence, constant"),
    ],
)
def test_settings_that_make_no_sense_are_refused(told: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyLoss(**told)


def test_arrays_that_do_not_fit_are_refused() -> None:
    full, row = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="behaviour must have the shape"):
        policy_loss(row, row, row[:, :1], torch.zeros(2), full, PolicyLoss())
    with pytest.raises(ValueError, match="needs the reference"):
        policy_loss(row, row, row, torch.zeros(2), full, PolicyLoss(kl_coef=0.1))
    with pytest.raises(ValueError, match="new must have the shape"):
        sft_loss(row[:, :1], full)
