"""Winograd's convolutions give what torch's give, forward and backward, for any board, batch and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from selfplay.nets import NetConfig, winograd
from trainers.alphazero.training_step import forward, trainable


def with_gradients(convolve: object, x: Tensor, weight: Tensor, of_result: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    result = convolve(x, weight)  # type: ignore[operator]
    result.backward(of_result)
    assert x.grad is not None and weight.grad is not None
    return result.detach(), x.grad, weight.grad


def reference(x: Tensor, weight: Tensor, of_result: Tensor) -> tuple[Tensor, ...]:
    """In float64."""
    doubles = (tensor.double() for tensor in (x, weight, of_result))
    return with_gradients(lambda x, weight: F.conv2d(x, weight, padding=1), *doubles)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(1, 70), st.integers(0, 9)
)
def test_it_is_a_convolution(height: int, width: int, inputs: int, outputs: int, batch: int, seed: int) -> None:
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, height, width, generator=make)
    if seed % 2:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3, generator=make)
    of_result = torch.randn(batch, outputs, height, width, generator=make)
    found = with_gradients(winograd.convolve, x, weight, of_result)
    for mine, exact in zip(found, reference(x, weight, of_result), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=0, atol=5e-5 * float(exact.abs().max()) + 1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_portions_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, of_result = torch.randn(203, 16, 6, 7), torch.randn(24, 16, 3, 3), torch.randn(203, 24, 6, 7)
    whole = with_gradients(winograd.convolve, x, weight, of_result)
    monkeypatch.setattr(winograd, "_PORTION", 1)  # as few boards at a time as ever
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = with_gradients(winograd.convolve, x, weight, of_result)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))


def test_a_line_takes_few_products() -> None:
    taken = {cells: len(winograd.line(cells)[1]) for cells in (1, 3, 4, 6, 7, 8, 9, 19)}
    assert taken == {1: 3, 3: 5, 4: 6, 6: 10, 7: 11, 8: 12, 9: 15, 19: 29}
    for cells in taken:
        a, b, g = winograd.line(cells)
        kernel, inputs = np.random.default_rng(cells).normal(size=3), np.random.default_rng(0).normal(size=cells)
        padded = np.pad(inputs, 1)
        expected = [kernel @ padded[i : i + 3] for i in range(cells)]
        np.testing.assert_allclose(a @ ((g @ kernel) * (b @ inputs)), expected, atol=1e-12)


def test_a_net_learns_the_same() -> None:
    config = NetConfig((3, 6, 7), 7, True, channels=8, blocks=2)
    x = torch.rand(64, 3, 6, 7).round()
    gradients = []
    for layout in ("channels_last", "winograd"):
        net = trainable(config, 3, layout)  # type: ignore[arg-type]
        policy, value = forward(net, x, False, layout)  # type: ignore[arg-type]
        (torch.log_softmax(policy, 1)[:, 0].mean() + value.square().mean()).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, one in gradients[0].items():
        other = gradients[1][name]
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
