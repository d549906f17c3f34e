"""The loss against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.alphazero.loss import log_softmax_legal, losses, outcome_of


def batch(rows: int = 4, actions: int = 3, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    legal = torch.ones(rows, actions, dtype=torch.bool)
    legal[0, 1] = False
    policy = torch.rand(rows, actions, generator=generator) * legal
    ones = torch.ones(rows)
    z = torch.tensor([1.0, -1.0, 0.0, 1.0])[:rows]
    made = {
        "policy": policy / policy.sum(1, keepdim=True),
        "legal": legal,
        "z": z,
        "q": z * 0.5,
        "policy_weight": ones,
        "z_weight": ones * 0.5,
        "q_weight": ones * 0.5,
    }
    return made | changes


def test_illegal_actions_have_no_probability_and_no_gradient() -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    made = batch()
    log_policy = log_softmax_legal(logits, made["legal"])
    assert log_policy[0].exp()[made["legal"][0]].sum().item() == pytest.approx(1)
    loss, report = losses(logits, torch.zeros(4, 3), made)
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 1] == 0 and torch.isfinite(logits.grad).all()
    assert all(torch.isfinite(value) for value in report.values())


def test_policy_loss_is_cross_entropy() -> None:
    made = batch()
    target = made["policy"]
    logits = torch.where(made["legal"], target, torch.ones(())).log()
    _, report = losses(logits, torch.zeros(4, 3), made)
    entropy = -torch.xlogy(target, target).sum(1).mean().item()
    assert report["policy_loss"].item() == pytest.approx(entropy, abs=1e-6)
    assert report["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert report["policy_kl"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("q", "draw"), [(0.0, 0.2), (0.7, 0.9), (-1.0, 0.5), (0.3, 0.0)])
def test_outcome_of_keeps_the_value(q: float, draw: float) -> None:
    win, drawn, lost = outcome_of(torch.tensor([q]), torch.tensor([draw]))[0].tolist()
    assert min(win, drawn, lost) >= -1e-7
    assert win + drawn + lost == pytest.approx(1)
    assert win - lost == pytest.approx(q, abs=1e-6)
    assert drawn == pytest.approx(min(draw, 1 - abs(q)), abs=1e-6)


def test_outcome_value_loss() -> None:
    """z only: minus the log-probability of what happened; seen from the seat to act."""
    value_logits = torch.tensor([[2.0, 0.0, -1.0]]).expand(4, 3)
    made = batch(z_weight=torch.ones(4), q_weight=torch.zeros(4))
    _, report = losses(torch.zeros(4, 3), value_logits, made)
    log_outcome = torch.log_softmax(value_logits[0], 0)
    expected = -(2 * log_outcome[0] + log_outcome[1] + log_outcome[2]) / 4
    assert report["value_loss"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_scalar_value_loss_is_towards_the_weighted_mean() -> None:
    value_logits = torch.zeros(4, 1)
    made = batch()
    _, report = losses(torch.zeros(4, 3), value_logits, made)
    target = 0.75 * made["z"].numpy()
    assert report["value_loss"].item() == pytest.approx(float(np.mean(target**2)), abs=1e-6)


def test_weights_of_zero_teach_nothing() -> None:
    zero = torch.zeros(4)
    policy_logits = torch.randn(4, 3, requires_grad=True)
    value_logits = torch.randn(4, 3, requires_grad=True)
    made = batch(policy_weight=zero, z_weight=zero, q_weight=zero)
    loss, report = losses(policy_logits, value_logits, made)
    loss.backward()
    assert loss.item() == 0 and all(torch.isfinite(value) for value in report.values())
    assert policy_logits.grad is not None and not policy_logits.grad.any()
    assert value_logits.grad is not None and not value_logits.grad.any()


@pytest.mark.parametrize("values", [1, 3])
def test_mean_of_shards_is_the_whole(values: int) -> None:
    """Also where the weights differ between the shards."""
    made = batch(policy_weight=torch.tensor([0.0, 1, 1, 1]), z_weight=torch.tensor([0.0, 0, 1, 0.3]))
    policy_logits, value_logits = torch.randn(4, 3), torch.randn(4, values)
    whole, _ = losses(policy_logits, value_logits, made)
    halves = [
        losses(policy_logits[s], value_logits[s], {k: v[s] for k, v in made.items()})[0]
        for s in (slice(0, 2), slice(2, 4))
    ]
    assert whole.item() == pytest.approx((halves[0] + halves[1]).item() / 2, abs=1e-6)


def test_value_explained() -> None:
    made = batch(z_weight=torch.ones(4))
    perfect = torch.stack([made["z"] > 0.5, made["z"] == 0, made["z"] < -0.5], 1) * 40.0
    assert losses(torch.zeros(4, 3), perfect, made)[1]["value_explained"].item() == pytest.approx(1, abs=1e-4)
    assert losses(torch.zeros(4, 3), torch.zeros(4, 3), made)[1]["value_explained"].item() == pytest.approx(0, abs=1e-6)
