"""How fast the net is on the device: positions a second by size, dtype and batch, beside what the device could do."""

from __future__ import annotations

import time
from typing import Any

import torch
from machine import DTYPES, bandwidth, describe, peak_tflops, seconds_of, tf32
from nets import SIZES, TINY, config_of, flops, positions
from report import Report, Skip

from selfplay.nets import Evaluator, build, to_arrays
from selfplay.nets.cuda_graphs import padded
from selfplay.nets.inference import has_bfloat16
from selfplay.nets.policy_value import FoldedNet

BATCHES = (16, 64, 256, 1024, 4096, 8192)


def main(report: Report, device: str, small: bool) -> None:
    """The check. small: sizes for seconds on a CPU."""
    report.case("the machine", machine, device)
    sizes, batches = ((TINY,), (16, 64)) if small else (SIZES, BATCHES)
    for dtype in ("bfloat16", "float32"):
        for size in sizes:
            for batch in batches if dtype == "bfloat16" else batches[-2::-2]:
                report.case(f"{size} {dtype} evaluator, batch {batch}", evaluator, size, dtype, batch, device)
    for size in sizes:
        for dtype in ("bfloat16", "float32", "tf32"):
            report.case(f"{size} {dtype} layouts, batch {batches[-2]}", layouts, size, dtype, batches[-2], device)
    if not small:
        report.case("64x5 bfloat16 torch.compile, batch 1024", compiled, "64x5", 1024, device, need_s=15.0)


def machine(device: str) -> dict[str, Any]:
    numbers = describe(device) | {"copy_gb_per_s": bandwidth(device) / 1e9}
    for dtype in DTYPES:
        if _has(dtype, device):
            numbers[f"{dtype}_tflops"] = peak_tflops(dtype, device)
    return numbers


def evaluator(size: str, dtype: str, batch: int, device: str) -> dict[str, Any]:
    """As the search calls it: numpy in, numpy out, the copies included. first_s: until a new batch size answers."""
    _refuse_missing(dtype, device)
    config, x = config_of(size), positions(batch)
    evaluate = Evaluator(config, dtype, device, torch.get_num_threads())  # type: ignore[arg-type]
    began = time.perf_counter()
    evaluate(x)
    first = time.perf_counter() - began
    spent = seconds_of(lambda: evaluate(x), device, 0.25)
    work = flops(build(config, 0)) * (padded(batch) if device == "cuda" else batch)
    tflops = work / spent / 1e12
    numbers = {"positions_per_s": batch / spent, "ms": spent * 1e3, "first_s": first, "tflops": tflops}
    began = time.perf_counter()
    evaluate.load(to_arrays(build(config, 1)))
    return {**numbers, "of_peak": tflops / peak_tflops(dtype, device), "load_s": time.perf_counter() - began}


def layouts(size: str, dtype: str, batch: int, device: str) -> dict[str, Any]:
    """The same net plainly, without copies: milliseconds with channels last, which the evaluator takes, and first."""
    _refuse_missing(dtype, device)
    config = config_of(size)
    x = torch.from_numpy(positions(batch)).to(device)
    numbers: dict[str, Any] = {}
    folded = FoldedNet(build(config, 0).eval(), DTYPES[dtype]).eval().to(device)
    with torch.inference_mode(), tf32(dtype == "tf32"):
        numbers["channels_last_ms"] = seconds_of(lambda: folded(x), device, 0.2) * 1e3
        first = _trunk(folded, x, torch.contiguous_format)
        last = _trunk(folded, x, torch.channels_last)
        numbers["trunk_last_ms"] = seconds_of(last, device, 0.2) * 1e3
        numbers["trunk_first_ms"] = seconds_of(first, device, 0.2) * 1e3
        if device == "cuda":
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=dtype == "tf32"):
                numbers["cudnn_benchmark_ms"] = seconds_of(lambda: folded(x), device, 0.2) * 1e3
        best = min(value for name, value in numbers.items() if not name.startswith("trunk")) / 1e3
    tflops = flops(build(config, 0)) * batch / best / 1e12
    return {**numbers, "tflops": tflops, "of_peak": tflops / peak_tflops(dtype, device)}


def _trunk(net: FoldedNet, x: torch.Tensor, layout: torch.memory_format) -> Any:
    """Only the convolutions of the blocks, with weights and input in one memory layout."""
    convs = [(c.weight.contiguous(memory_format=layout), c.bias) for c in net.convs]
    given = net.stem(x.to(net.dtype)).contiguous(memory_format=layout)

    def run() -> torch.Tensor:
        y = given
        for weight, bias in convs:
            y = torch.relu(torch.nn.functional.conv2d(y, weight, bias, padding=1))
        return y

    return run


def compiled(size: str, batch: int, device: str) -> dict[str, Any]:
    """torch.compile of the folded net, against it plainly and as the evaluator's CUDA graph, each without copies."""
    x = torch.from_numpy(positions(batch)).to(device)
    folded = FoldedNet(build(config_of(size), 0).eval(), torch.bfloat16).eval().to(device)
    with torch.inference_mode():
        numbers = {"plain_ms": seconds_of(lambda: folded(x), device, 0.3) * 1e3}
        began = time.perf_counter()
        fast = torch.compile(folded, mode="reduce-overhead" if device == "cuda" else "default", dynamic=False)
        try:
            fast(x)
        except Exception as error:  # it needs triton and a C compiler
            raise Skip(f"torch.compile does not work here: {str(error).strip()[:200]}") from None
        numbers["compiling_s"] = time.perf_counter() - began
        numbers["compiled_ms"] = seconds_of(lambda: fast(x), device, 0.3) * 1e3
    return numbers


def _has(dtype: str, device: str) -> bool:
    if dtype == "tf32":
        return device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    return dtype == "float32" or device == "cpu" or has_bfloat16(device)


def _refuse_missing(dtype: str, device: str) -> None:
    if not _has(dtype, device):
        raise Skip(f"the device has no {dtype}")
