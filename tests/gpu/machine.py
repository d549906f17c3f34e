"""What this machine can do at most, measured: products a second in a dtype, bytes a second of a copy; and a clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


def wait(device: str) -> None:
    """Until the device has done what it was given. Raises what went wrong there."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], device: str, most_s: float = 0.5, most_runs: int = 200) -> float:
    """Seconds of one `run`, the median of several after a warm-up; the device has finished after each."""
    run()
    wait(device)
    spent: list[float] = []
    end = time.perf_counter() + most_s
    while len(spent) < 3 or (time.perf_counter() < end and len(spent) < most_runs):
        began = time.perf_counter()
        run()
        wait(device)
        spent.append(time.perf_counter() - began)
    return sorted(spent)[len(spent) // 2]


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products, convolutions too, may round their inputs to TF32 meanwhile. torch's own setting: in
    convolutions only."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@cache
def peak_tflops(dtype: str, device: str) -> float:
    """TFLOP/s of one large product of square matrices."""
    size = 8192 if device == "cuda" else 512
    with tf32(dtype == "tf32"):
        a, b = (torch.randn(size, size, device=device).to(DTYPES[dtype]) for _ in range(2))
        return 2 * size**3 / seconds_of(lambda: a @ b, device, 0.3) / 1e12


@cache
def bandwidth(device: str) -> float:
    """Bytes a second that the device's memory reads and writes, by a large copy."""
    source = torch.zeros(2**30 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds_of(lambda: target.copy_(source), device, 0.3)


def describe(device: str) -> dict[str, Any]:
    """Name, memory, library versions."""
    about: dict[str, Any] = {"torch": torch.__version__, "cpus": torch.get_num_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {"device": properties.name, "memory_gib": properties.total_memory / 2**30}
        about |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        about["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    return about
