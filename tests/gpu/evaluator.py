"""The evaluator on the device: does it say what the net says on the CPU in float32, whatever batch a position is in?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from machine import tf32
from nets import SIZES, TINY, Arrays, config_of, opinionated, positions
from report import Report, Skip, bounded

from selfplay.nets import Evaluator, NetConfig, build, from_arrays, value_of
from selfplay.nets.policy_value import FoldedNet

#: Largest difference to the CPU's float32 that rounding explains: KL (nats) and value, by dtype. Above these
#: something else is wrong; TF32 in place of float32 is ten times above the float32 bounds.
BOUNDS = {
    "float32": {"max_kl": 1e-7, "max_value": 2e-4},
    "tf32": {"max_kl": 2e-3, "max_value": 3e-2},
    "bfloat16": {"max_kl": 0.1, "mean_kl": 1e-2, "max_value": 0.25},
}
Answer = tuple[np.ndarray, np.ndarray]


def main(report: Report, device: str, small: bool) -> None:
    """The check. small: sizes for seconds on a CPU."""
    for size in (TINY,) if small else SIZES:
        config = config_of(size)
        count = 64 if small else 128 if size == "256x20" else 512
        tensors = opinionated(config, device)
        truth = reference(config, tensors, positions(count))
        for dtype in ("float32", "tf32", "bfloat16"):
            report.case(f"{size} {dtype} against CPU float32", agree, config, tensors, dtype, device, truth)
        report.case(f"{size} batches of 1, 16, {count}", batches, config, tensors, device, count)
    config = config_of(TINY if small else "32x4")
    report.case("weights loaded again and again", reloaded, config, device)
    report.case("every padded batch size", padding, config, device, 130 if small else 2100)


def reference(config: NetConfig, tensors: Arrays, x: np.ndarray) -> Answer:
    """Logits and values of the net as it is trained, in float32 on the CPU."""
    net = build(config, 0)
    from_arrays(net, tensors)
    with torch.inference_mode():
        logits, value = net.eval()(torch.from_numpy(x))
        return logits.numpy(), value_of(value).numpy()


def distance(mine: Answer, truth: Answer) -> dict[str, float]:
    """KL(truth || mine) of the policies in nats, and the difference of the values."""
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), 1) for logits in (truth[0], mine[0]))
    kl = (p.exp() * (p - q)).sum(1)
    apart = np.abs(mine[1].astype(np.float64) - truth[1])
    numbers = {"max_kl": float(kl.max()), "mean_kl": float(kl.mean()), "max_value": float(apart.max())}
    return {**numbers, "mean_value": float(apart.mean())}


def agree(config: NetConfig, tensors: Arrays, dtype: str, device: str, truth: Answer) -> dict[str, Any]:
    x = positions(len(truth[0]))
    if dtype == "tf32":
        return bounded(BOUNDS[dtype], distance(in_tf32(config, tensors, x, device), truth))
    evaluator = Evaluator(config, dtype, device, torch.get_num_threads())  # type: ignore[arg-type]
    evaluator.load(tensors)
    spread = {"policy_std": float(truth[0].std(0).mean()), "value_std": float(truth[1].std())}
    return bounded(BOUNDS[dtype], distance(evaluator(x), truth)) | spread


def in_tf32(config: NetConfig, tensors: Arrays, x: np.ndarray, device: str) -> Answer:
    """What float32 would be with torch's own settings."""
    if device == "cpu" or torch.cuda.get_device_capability() < (8, 0):
        raise Skip("the device has no TF32")
    net = build(config, 0)
    from_arrays(net, tensors)
    folded = FoldedNet(net.eval(), torch.float32).eval().to(device)
    with tf32(True), torch.inference_mode():
        logits, value = folded(torch.from_numpy(x).to(device))
        return logits.cpu().numpy(), value_of(value).cpu().numpy()


def batches(config: NetConfig, tensors: Arrays, device: str, count: int) -> dict[str, Any]:
    """How far the answer to a position depends on the batch that it is in, in the evaluator's own dtype."""
    evaluator = Evaluator(config, "auto", device, torch.get_num_threads())
    evaluator.load(tensors)
    x = positions(count)
    whole = evaluator(x)
    numbers: dict[str, Any] = {"dtype": evaluator.dtype}
    for size in (1, 16):
        parts = [evaluator(x[i : i + size]) for i in range(0, 64, size)]
        apart = distance(tuple(map(np.concatenate, zip(*parts, strict=True))), (whole[0][:64], whole[1][:64]))  # type: ignore[arg-type]
        numbers |= {f"kl_{size}": apart["max_kl"], f"value_{size}": apart["max_value"]}
    again = evaluator(x)
    numbers["repeats"] = float(np.abs(again[0] - whole[0]).max() + np.abs(again[1] - whole[1]).max())
    kl, value = BOUNDS["bfloat16"]["max_kl"], BOUNDS["bfloat16"]["max_value"]
    return bounded({"kl_1": kl, "kl_16": kl, "value_1": value, "value_16": value, "repeats": 0.0}, numbers)


def reloaded(config: NetConfig, device: str) -> dict[str, Any]:
    """After every `load` it is the new net that answers, at sizes that were seen before and at new ones."""
    evaluator = Evaluator(config, "float32", device, torch.get_num_threads())
    nets = [opinionated(config, device, seed) for seed in range(3)]
    worst = dict.fromkeys(BOUNDS["float32"], 0.0)
    for i, tensors in enumerate([*nets, *nets]):
        evaluator.load(tensors)
        x = positions(16 * (i + 1), i)
        for part in (x[:16], x):
            apart = distance(evaluator(part), reference(config, tensors, part))
            worst = {name: max(worst[name], apart[name]) for name in worst}
    between = distance(reference(config, nets[0], x), reference(config, nets[1], x))
    return bounded(BOUNDS["float32"], worst) | {"between_nets_kl": between["mean_kl"]}


def padding(config: NetConfig, device: str, most: int) -> dict[str, Any]:
    """Every size around those that batches are padded to: no row is lost, none is another's."""
    evaluator = Evaluator(config, "float32", device, torch.get_num_threads())
    tensors = opinionated(config, device)
    evaluator.load(tensors)
    x = positions(most)
    truth = reference(config, tensors, x)
    sizes = sorted({n + d for n in (1, 16, 64, 128, 160, 256, 1024, 2048) for d in (-1, 0, 1) if 1 <= n + d <= most})
    worst = dict.fromkeys(BOUNDS["float32"], 0.0)
    for size in (*sizes, *reversed(sizes)):
        apart = distance(evaluator(x[most - size :]), (truth[0][most - size :], truth[1][most - size :]))
        worst = {name: max(worst[name], apart[name]) for name in worst}
    return bounded(BOUNDS["float32"], worst) | {"sizes": len(sizes)}
