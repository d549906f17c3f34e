"""What the value head learns is the mean of the results, whichever head it is and whatever results a game has."""

from __future__ import annotations

import pytest
import torch

from selfplay.nets import value_of
from trainers.alphazero.loss import value_losses

#: Results that positions come to, for the seat to act: a margin of victory d/21, as of a game of tallies.
MARGINS = [[0.4], [0.6], [-0.6], [1 / 21, 5 / 21], [-1.0, 0.4, 0.9], [20 / 21, 1.0], [1.0, -1.0, 0.0]]


@pytest.mark.parametrize("outputs", [1, 3])
def test_results_between_loss_and_win_are_learned_as_what_they_are(outputs: int) -> None:
    z = torch.tensor([result for results in MARGINS for result in results])
    of = torch.tensor([i for i, results in enumerate(MARGINS) for _ in results])
    zeros, ones = torch.zeros_like(z), torch.ones_like(z)
    batch = {"z": z, "q": zeros, "z_weight": ones, "q_weight": zeros}
    logits = torch.zeros(len(MARGINS), outputs, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        optimiser.zero_grad()
        value_losses(logits[of], batch).sum().backward()
        optimiser.step()
    wanted = torch.tensor([sum(results) / len(results) for results in MARGINS])
    assert (value_of(logits.detach()) - wanted).abs().max() < 0.02


def test_wins_draws_and_losses_are_certain() -> None:
    z, some = torch.tensor([1.0, 0.0, -1.0]), torch.randn(3, 3)
    batch = {"z": z, "q": torch.zeros(3), "z_weight": torch.ones(3), "q_weight": torch.zeros(3)}
    wanted = torch.nn.functional.cross_entropy(some, torch.tensor([0, 1, 2]), reduction="none")
    assert torch.allclose(value_losses(some, batch), wanted)
