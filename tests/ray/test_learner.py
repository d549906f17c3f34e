"""The learner: it learns, resumes exactly, and N processes compute what one does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import ray
import torch

from selfplay.episode.rows import Rows
from selfplay.errors import UserError
from selfplay.nets import Evaluator, NetConfig, build, weights
from trainers.alphazero.learner import AlphaZeroLearner
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.optimizer import Optimizer
from trainers.alphazero.replay_window import ReplayWindow, WindowSettings, step_rng
from trainers.alphazero.rllib_module import PolicyValueLearner
from trainers.alphazero.training_step import state_of, trainable, training_step

NET = NetConfig((3, 4, 5), 6, outcome=True, channels=8, blocks=2, value_hidden=16)


def rows(count: int, seed: int = 0, config: NetConfig = NET) -> Rows:
    """Random observations; the policy, z and q are drawn once for each."""
    rng = np.random.default_rng(seed)
    actions = config.num_actions
    z = rng.integers(-1, 2, count).astype(np.float32)
    ones = np.ones(count, np.float32)
    return Rows(
        observations=(rng.random((count, *config.input_shape)) < 0.4).astype(np.float32),
        offsets=np.arange(count + 1, dtype=np.int64) * actions,
        actions=np.tile(np.arange(actions, dtype=np.int32), count),
        targets=rng.dirichlet(np.full(actions, 0.3), count).astype(np.float32).reshape(-1),
        z=z,
        q=z * 0.8,
        policy_weight=ones,
        z_weight=ones * 0.5,
        q_weight=ones * 0.5,
    )


def learner(net: NetConfig = NET, **settings) -> AlphaZeroLearner:
    defaults = {"batch": 64, "device": "cpu", "bf16": False, "threads": 1}
    return AlphaZeroLearner(net, LearnerSettings(**(defaults | settings)))


@pytest.mark.parametrize(
    "net",
    [NET, NetConfig((60,), 6, outcome=False, hidden=64, layers=2)],
    ids=["outcome resnet", "scalar mlp"],
)
def test_overfits_one_small_batch(net: NetConfig) -> None:
    one = learner(net, lr=1e-2)
    data = rows(64, config=net)
    one.add(data)
    first = one.train(1)
    one.train(250)
    last = one.train(1)
    assert last["policy_kl"] < 0.02 < first["policy_kl"]
    assert last["value_explained"] > 0.9 > first["value_explained"]
    assert last["step"] == 252 and last["samples"] == 252 * 64
    evaluator = Evaluator(net, dtype="float32", device="cpu")
    for _ in range(40):  # lets the running statistics settle at a rate that changes little else
        one.train(1, lr=1e-5)
    evaluator.load(one.weights())
    _, value = evaluator(data.observations)
    assert np.corrcoef(value, data.z)[0, 1] > 0.9, "what was learned is what the actors get"


def test_bfloat16_learns_too() -> None:
    one = learner(bf16=True, lr=1e-2)
    one.add(rows(64))
    first, last = one.train(1), one.train(150)
    assert last["loss"] < first["loss"] and one.train(1)["policy_kl"] < 0.1


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_step_without_rllib_is_the_step_within_it_to_the_bit(optimizer: str, bf16: bool) -> None:
    one = learner(optimizer=optimizer, bf16=bf16, grad_clip=0.3)
    one.add(rows(200))
    one.train(3, lr=1e-3)
    net = trainable(NET, 0)
    plain = Optimizer(net, optimizer, 1e-3, one.settings.weight_decay)  # type: ignore[arg-type]
    window = ReplayWindow(NET.input_shape, NET.num_actions, WindowSettings())
    window.add(rows(200))
    for step in range(3):
        batch = {name: torch.from_numpy(a) for name, a in window.sample(64, step_rng(0, step, 0)).items()}
        training_step(net, plain, batch, bf16, 0.3)
    same(one.state()[0], state_of(net, plain, {}))


@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", 0.0), ("adamw", 0.9), ("muon", 0.9)])
def test_resume_is_exact(tmp_path, optimizer: str, ema: float) -> None:
    uri, data = str(tmp_path / "checkpoint.safetensors"), rows(300)
    whole = learner(ema=ema, seed=3, optimizer=optimizer)
    whole.add(data)
    whole.train(7)
    whole.save(uri)
    whole.train(5, lr=1e-3)
    resumed = learner(ema=ema, seed=3, optimizer=optimizer)
    resumed.restore(uri)
    assert (resumed.step, resumed.samples, resumed.total) == (7, 7 * 64, 300)
    assert resumed.capacity == whole.capacity
    resumed.add(data, new=False)
    resumed.train(5, lr=1e-3)
    assert resumed.total == 300
    same(resumed.state()[0], whole.state()[0])
    same(resumed.weights(), whole.weights())


def test_same_seed_same_weights() -> None:
    made = []
    for _ in range(2):
        one = learner(seed=5)
        one.add(rows(200))
        one.train(4)
        made.append(weights.digest(one.weights()))
    assert made[0] == made[1]


def test_averaged_weights_are_an_average_of_the_steps() -> None:
    one = learner(ema=0.99, lr=1e-2)
    one.add(rows(64))
    name = "value.weight"
    expected = one.weights()[name]
    for step in range(5):
        one.train(1)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * one.state()[0][f"net/{name}"]
    np.testing.assert_allclose(one.weights()[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channels_last", [True, False])
def test_muon_steps_are_orthogonal_and_as_large_as_adamws(channels_last: bool) -> None:
    net = build(NET, 0)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    optimizer = Optimizer(net, "muon", lr=0.01, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 0.1
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(
            memory_format=torch.channels_last if channels_last and p.ndim == 4 else torch.contiguous_format
        )
    optimizer.step()
    by_muon = set()
    for name, p in net.named_parameters():
        moved = (p.detach() - before[name]).flatten(1) if p.ndim > 1 else p.detach() - before[name]
        size = float(moved.square().mean().sqrt())
        if any(key.startswith("muon/") for key in optimizer.moments(p)):
            by_muon.add(name)
            singular = torch.linalg.svdvals(moved)
            assert singular.max() / singular.min() < 3, name  # five iterations bring them near to each other
            assert 0.5 < size / (0.1 * 0.2) < 1.5, name
            assert (moved * p.grad.flatten(1)).sum() < 0, name
        else:
            assert size == pytest.approx(0.1, rel=1e-3), name  # AdamW's first step
    kernels = {name for name, p in net.named_parameters() if p.ndim > 1}
    assert by_muon == {name for name in kernels if name.split(".")[0] not in ("policy", "value")}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kernels_decay_and_biases_do_not(optimizer: str) -> None:
    one = learner(weight_decay=0.5, lr=0.1, optimizer=optimizer)
    before = {name: tensor.copy() for name, tensor in one.weights().items()}
    data = rows(64)
    for weight in (data.policy_weight, data.z_weight, data.q_weight):
        weight[:] = 0
    one.add(data)
    one.train(1)
    after = one.weights()
    np.testing.assert_allclose(after["stem.weight"], before["stem.weight"] * 0.95, rtol=1e-5)
    np.testing.assert_allclose(after["stem_norm.weight"], before["stem_norm.weight"])


def test_divergence_raises() -> None:
    one = learner()
    data = rows(64)
    data.q[3] = np.nan
    one.add(data)
    with pytest.raises(FloatingPointError, match="diverged"):
        one.train(2)


def test_another_net_or_file_is_refused(tmp_path) -> None:
    uri = str(tmp_path / "checkpoint.safetensors")
    learner().save(uri)
    other = learner(NetConfig((3, 4, 5), 6, outcome=True, channels=16, blocks=2))
    with pytest.raises(UserError, match="another shape"):
        other.restore(uri)
    weights.save(uri, {"a": np.zeros(3, np.float32)}, {"kind": "policy"})
    with pytest.raises(UserError, match="not a learner's checkpoint but 'policy'"):
        other.restore(uri)
    with pytest.raises(UserError, match="not a multiple of 3"):
        learner(batch=64, learners=3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.parametrize("norm", ["batch", pytest.param("none", marks=pytest.mark.slow)])
def test_two_learners_compute_the_gradient_of_the_union(cluster: None, norm: str) -> None:
    """After one step AdamW's first moment is 0.1 of the gradient; every row is in every batch, on both sides."""
    net = NetConfig((3, 4, 5), 6, outcome=True, channels=8, blocks=2, value_hidden=16, norm=norm)
    data = rows(64)
    data.policy_weight[:20] = 0  # shards whose weights differ
    data.z_weight[40:] = 0.1
    options = {"batch": 64, "grad_clip": 1e9, "window": WindowSettings(initial=64)}
    one, two = learner(net, **options), learner(net, learners=2, **options)
    try:
        one.add(data)
        two.add(data)
        assert one.window_rows() == two.window_rows() == 64
        report_one, report_two = one.train(1), two.train(1)
        assert report_two["loss"] == pytest.approx(report_one["loss"], rel=1e-4)
        assert report_two["grad_norm"] == pytest.approx(report_one["grad_norm"], rel=1e-3)
        first, second = one.state()[0], two.state()[0]
        for name in first:
            if name.startswith("adamw/exp_avg/") or name.endswith(("mean", "var")):
                scale = np.abs(first[name]).max() + 1e-6
                np.testing.assert_allclose(second[name], first[name], atol=2e-3 * scale, rtol=1e-3, err_msg=name)
        for _ in range(3):
            assert two.train(2)["loss"] == pytest.approx(one.train(2)["loss"], rel=2e-2)
        evaluator = Evaluator(net, device="cpu")
        evaluator.load(two.weights())
    finally:
        two.shutdown()


def test_two_learners_resume_exactly_and_report_failures(cluster: None, tmp_path) -> None:
    uri, data = str(tmp_path / "checkpoint.safetensors"), rows(200)
    two = learner(learners=2, optimizer="muon")
    try:
        two.add(data)
        two.train(3)
        two.save(uri)
        two.train(2)
        want = two.state()[0]
        two.restore(uri)
        two.train(2)
        got = two.state()[0]
        same(got, want)

        with pytest.raises(RuntimeError, match="a learner failed"):
            two._each(_fail)
        with pytest.raises(RuntimeError):
            two._each(_exit_second)
        with pytest.raises(RuntimeError):
            two.train(1)
    finally:
        two.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        two.train(1)


def _fail(learner: PolicyValueLearner) -> None:
    raise ValueError("on purpose")


def _exit_second(learner: PolicyValueLearner) -> None:
    if learner.rank == 1:
        import os

        os._exit(1)


def test_learner_as_a_ray_actor(cluster: None) -> None:
    actor = ray.remote(AlphaZeroLearner).options(num_cpus=0).remote(NET, LearnerSettings(batch=32, threads=1))
    ray.get(actor.add.remote(rows(100)))
    report = ray.get(actor.train.remote(2))
    assert report["samples"] == 64 and torch.isfinite(torch.tensor(report["loss"]))
    tensors = ray.get(actor.weights.remote())
    assert tensors.keys() == {name for name, _ in build(NET, 0).state_dict().items()}
    ray.kill(actor)
