"""Nets: shapes, folding, inference against the plain net, weights at rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from selfplay.errors import UserError
from selfplay.io import run_files
from selfplay.nets import Evaluator, NetConfig, build, compiled, from_arrays, to_arrays, value_of, weights
from selfplay.nets.inference import pick_device, pick_dtype

CONFIGS = {
    "resnet": NetConfig((3, 6, 7), 7, outcome=True, channels=16, blocks=2),
    "odd board, no norm": NetConfig((2, 5, 3), 15, outcome=True, channels=16, blocks=1, norm="none"),
    "planes and a pass": NetConfig((4, 9, 9), 82, outcome=True, channels=32, blocks=2, policy_planes=1),
    "planes only": NetConfig((4, 4, 4), 32, outcome=False, channels=8, blocks=1, policy_planes=2),
    "mlp": NetConfig((27,), 9, outcome=False, hidden=32, layers=2),
    "mlp of a board": NetConfig((3, 3, 3), 9, outcome=True, trunk="mlp", hidden=32, layers=2),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def trained(config: NetConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a net whose heads and statistics are not those of a fresh one."""
    rng = np.random.default_rng(seed)
    tensors = to_arrays(build(config, seed))
    for name, tensor in tensors.items():
        if name.endswith("var"):
            tensor[...] = rng.uniform(0.5, 2, tensor.shape)
        elif name == "peaks":
            tensor[...] = 12
        elif tensor.ndim == 1:
            tensor += rng.normal(0, 0.2, tensor.shape).astype(np.float32)
        elif name.startswith(("policy", "value.")):
            tensor *= 50
    return tensors


def test_a_version_is_written_once(tmp_path: Path) -> None:
    """A driver that was replaced writes a version that its successor has written already: it gets the next number."""
    first, second = trained(CONFIGS["mlp"], 0), trained(CONFIGS["mlp"], 1)
    assert weights.save_version(str(tmp_path), 4, first, {"step": 1}) == 4
    assert weights.save_version(str(tmp_path), 4, second, {"step": 2}) == 5
    tensors, meta = weights.load(run_files.weights_uri(str(tmp_path), 4))
    assert weights.digest(tensors) == weights.digest(first) == meta["digest"] and meta["step"] == 1
    assert weights.load(run_files.weights_uri(str(tmp_path), 5))[1]["version"] == 5


def observations(config: NetConfig, count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, *config.input_shape)) < 0.3).astype(np.float32)


def plain(config: NetConfig, tensors: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    net = build(config, 0).eval()
    from_arrays(net, tensors)
    with torch.no_grad():
        logits, value_logits = net(torch.from_numpy(x))
    return logits.numpy(), value_of(value_logits).numpy()


@each_config
def test_shapes_and_range(config: NetConfig) -> None:
    net = build(config, 0)
    logits, value_logits = net(torch.from_numpy(observations(config, 5)))
    assert logits.shape == (5, config.num_actions)
    assert value_logits.shape == (5, 3 if config.outcome else 1)
    value = value_of(value_logits)
    assert value.shape == (5,) and bool((value.abs() <= 1).all())


@pytest.fixture(params=["openvino", "torch"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with each way of computing a net."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    else:
        monkeypatch.setattr(compiled, "available", lambda: False)
    method: str = request.param
    return method


@each_config
def test_float32_inference_equals_the_net(config: NetConfig, method: str) -> None:
    tensors, x = trained(config), observations(config, 37)
    evaluator = Evaluator(config, dtype="float32", device="cpu")
    assert evaluator.method == (method if config.resnet else "torch")
    evaluator.load(tensors)
    logits, value = evaluator(x)
    expected_logits, expected_value = plain(config, tensors, x)
    assert logits.dtype == value.dtype == np.float32 and logits.shape == (37, config.num_actions)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(value, expected_value, rtol=1e-3, atol=1e-3)


@each_config
def test_bfloat16_inference_is_close(config: NetConfig, method: str) -> None:
    tensors, x = trained(config), observations(config, 64)
    evaluator = Evaluator(config, dtype="bfloat16", device="cpu")
    evaluator.load(tensors)
    logits, value = evaluator(x)
    expected_logits, expected_value = plain(config, tensors, x)
    spread = expected_logits.std()
    assert np.abs(logits - expected_logits).mean() < 0.03 * spread
    assert np.abs(value - expected_value).mean() < 0.02


@each_config
def test_int8_inference_is_close(config: NetConfig) -> None:
    """Also where training noted the peaks itself; a net that knows none is computed in bfloat16."""
    pytest.importorskip("openvino")
    tensors, x = trained(config), observations(config, 256)
    if config.resnet:
        net = build(config, 0)
        from_arrays(net, tensors)
        net.train()(torch.from_numpy(x))
        tensors["peaks"] = to_arrays(net)["peaks"]
        assert (tensors["peaks"] > 0).all()
    expected_logits, expected_value = plain(config, tensors, x)
    evaluator = Evaluator(config, dtype="int8", device="cpu")
    evaluator.load(tensors)
    logits, value = evaluator(x)
    assert np.abs(logits - expected_logits).mean() < 0.08 * expected_logits.std()
    assert np.abs(value - expected_value).mean() < 0.03
    if config.resnet:
        tensors["peaks"][0] = 0
        evaluator.load(tensors)
        unknown, _ = evaluator(x)
        assert np.abs(unknown - expected_logits).mean() < np.abs(logits - expected_logits).mean()


def test_dtypes_are_picked_by_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(compiled, "available", lambda: True)
    assert pick_dtype("auto", "cpu") == "int8" and pick_dtype("float32", "cpu") == "float32"
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert pick_dtype("auto", "cpu") == "bfloat16"
    with pytest.raises(UserError, match="needs a CPU and the package openvino"):
        pick_dtype("int8", "cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert pick_dtype("auto", "cpu") == "float32"


@each_config
def test_a_row_does_not_depend_on_its_batch(config: NetConfig) -> None:
    tensors, x = trained(config), observations(config, 50)
    evaluator = Evaluator(config, device="cpu")
    evaluator.load(tensors)
    whole = evaluator(x)
    again = evaluator(x)
    part = evaluator(x[7:8])
    for got, same, single in zip(whole, again, part, strict=True):
        np.testing.assert_array_equal(got, same)
        np.testing.assert_allclose(got[7:8], single, rtol=2e-2, atol=2e-2)


def test_results_belong_to_the_caller() -> None:
    config = CONFIGS["resnet"]
    evaluator = Evaluator(config, device="cpu")
    first = evaluator(observations(config, 20, seed=1))
    kept = [a.copy() for a in first]
    evaluator(observations(config, 20, seed=2))
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_load_changes_the_answer_and_refuses_another_net() -> None:
    config = CONFIGS["resnet"]
    evaluator = Evaluator(config, device="cpu")
    x = observations(config, 4)
    before = evaluator(x)[0]
    evaluator.load(trained(config, seed=3))
    assert np.abs(evaluator(x)[0] - before).max() > 0.01
    with pytest.raises(ValueError, match="shape|another net"):
        evaluator.load(trained(dataclasses.replace(config, channels=32)))


def test_fresh_net_prefers_nothing() -> None:
    config = CONFIGS["resnet"]
    logits, value = plain(config, to_arrays(build(config, 1)), observations(config, 32))
    assert np.abs(logits).max() < 0.5 and np.abs(value).max() < 0.3


def test_planes_number_actions_by_height_width_plane() -> None:
    """A bias on plane p raises exactly the actions (y * W + x) * planes + p."""
    config = CONFIGS["planes only"]
    tensors = to_arrays(build(config, 0))
    base, _ = plain(config, tensors, observations(config, 1))
    tensors["policy_board.bias"][1] += 5
    raised, _ = plain(config, tensors, observations(config, 1))
    np.testing.assert_allclose((raised - base)[0], np.tile([0, 5], 16), atol=1e-5)


def test_build_depends_on_the_seed_only() -> None:
    config = CONFIGS["resnet"]
    torch.manual_seed(5)
    first = to_arrays(build(config, 1))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn), "building a net must leave torch's global generator alone"
    assert weights.digest(first) == weights.digest(to_arrays(build(config, 1)))
    assert weights.digest(first) != weights.digest(to_arrays(build(config, 2)))


@each_config
def test_config_round_trips(config: NetConfig) -> None:
    assert NetConfig.from_json(config.to_json()) == config


def test_bad_configs_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match="three dimensions"):
        NetConfig((9,), 9, outcome=True, trunk="resnet")
    with pytest.raises(UserError, match="channels must be from 1 to 8192"):
        NetConfig((3, 3, 3), 9, outcome=True, channels=0)
    with pytest.raises(UserError, match="policy_planes=2 needs 18"):
        NetConfig((3, 3, 3), 9, outcome=True, policy_planes=2)
    with pytest.raises(UserError, match="newer"):
        NetConfig.from_json('{"schema": 99}')
    with pytest.raises(UserError, match="device 'tpu'"):
        Evaluator(CONFIGS["mlp"], device="tpu")
    with pytest.raises(UserError, match="dtype 'int4'"):
        Evaluator(CONFIGS["mlp"], dtype="int4")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no GPU"):
            pick_device("cuda")


def test_weights_round_trip(tmp_path) -> None:
    tensors = trained(CONFIGS["resnet"])
    uri = str(tmp_path / "net.safetensors")
    weights.save(uri, tensors, {"version": 3})
    loaded, meta = weights.load(uri)
    assert meta["version"] == 3 and meta["digest"] == weights.digest(tensors)
    assert loaded.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(loaded[name], tensors[name])


def test_digest_sees_names_shapes_and_bytes() -> None:
    base = {"a": np.zeros((2, 3), np.float32)}
    assert weights.digest(base) == weights.digest({"a": np.zeros((2, 3), np.float32)})
    for other in (
        {"b": base["a"]},
        {"a": base["a"].reshape(3, 2)},
        {"a": base["a"].astype(np.int32)},
        {"a": base["a"] + 1},
    ):
        assert weights.digest(other) != weights.digest(base)


def test_damaged_newer_and_foreign_files_are_told_apart(tmp_path, monkeypatch) -> None:
    data = weights.to_bytes({"a": np.zeros(4, np.float32)}, {})
    with pytest.raises(UserError, match="damaged"):
        weights.from_bytes(data[:-1] + b"\x01", "here")
    with pytest.raises(UserError, match="damaged"):
        weights.from_bytes(data[:-3], "here")
    for foreign in (b"", b"hello world, this is no net", data[:20]):
        with pytest.raises(UserError, match="here is damaged: it is (empty|not a weights file)"):
            weights.from_bytes(foreign, "here")
    monkeypatch.setattr(weights, "SCHEMA", 2)
    newer = weights.to_bytes({"a": np.zeros(4, np.float32)}, {})
    monkeypatch.setattr(weights, "SCHEMA", 1)
    with pytest.raises(UserError, match="newer"):
        weights.from_bytes(newer, "here")
    with pytest.raises(FileNotFoundError):
        weights.load(str(tmp_path / "none"))
