"""`selfplay doctor --cluster`: whether every node of a Ray cluster is fit for a run, before the first game."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from selfplay.cli.findings import Finding
from selfplay.errors import UserError
from selfplay.io import storage

#: Must be the same everywhere: these write what others read.
ALIKE = ("ray", "selfplay-factory", "torch", "numpy", "pyarrow", "deltalake", "open_spiel", "numba")
_CLOCK_S = 2.0
_ANSWER_S = 120.0
_FREE_GIB = 5.0


def examine(out: str | None) -> dict[str, Any]:
    """One node, seen from within. out: a folder or bucket that every node must be able to write; None: not tried."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ALIKE:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    gpus = 0
    with contextlib.suppress(Exception):
        import torch

        gpus = torch.cuda.device_count()
    return {
        "versions": versions,
        "gpus": gpus,
        "free_gib": shutil.disk_usage("/tmp").free / 2**30,
        "token": os.environ.get("RAY_AUTH_MODE") == "token",
        "bucket": None if out is None else probe(out),
        "time": time.time(),
    }


def probe(out: str) -> str:
    """Empty where an object can be written once, and only once, read and deleted; else what went wrong."""
    uri = storage.join(out, f"doctor-{uuid.uuid4().hex}")
    try:
        if not storage.create(uri, b"first"):
            return "it refuses a new object"
        if storage.create(uri, b"second") or storage.read(uri) != b"first":
            return "it does not honour conditional writes: two drivers could overwrite each other"
        storage.delete(uri)
    except Exception as error:
        return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ""


def nodes(address: str, out: str | None) -> Iterator[Finding]:
    """What is the matter with the nodes of a cluster, and what is well."""
    from trainers.run import placement
    from trainers.run.ray_session import ray_session

    with ray_session(address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = [node for node in ray.nodes() if node["Alive"]]
        looks, asked = {}, time.time()
        for node in alive:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": there, "max_retries": 0}
            looks[node["NodeID"]] = ray.remote(examine).options(**options).remote(out)
        here = examine(None)["versions"]
        resources = Counter[str]()
        for node in alive:
            name, has = node["NodeManagerAddress"], node["Resources"]
            resources.update({key: int(has.get(key, 0)) for key in ("CPU", "GPU", placement.STEADY, placement.APART)})
            try:
                seen = ray.get(looks[node["NodeID"]], timeout=_ANSWER_S)
            except Exception as error:
                yield Finding(name, "bad", f"cannot run our code: {str(error).strip().splitlines()[-1][:200]}")
                continue
            yield from _of_node(name, has, seen, here, asked, out)
        yield _whole(resources, len(alive))


def _of_node(
    name: str, has: dict[str, float], seen: dict[str, Any], here: dict[str, str], asked: float, out: str | None
) -> Iterator[Finding]:
    other = [f"{key} {seen['versions'].get(key, 'none')} instead of {value}" for key, value in here.items()
             if seen["versions"].get(key) != value]  # fmt: skip
    if other:
        yield Finding(name, "bad", f"other versions than here: {', '.join(other)}")
    if seen["gpus"] != int(has.get("GPU", 0)):
        yield Finding(name, "bad", f"Ray counts {has.get('GPU', 0):.0f} GPUs, torch sees {seen['gpus']}")
    apart = max(asked - seen["time"], seen["time"] - time.time())
    if apart > _CLOCK_S:
        yield Finding(name, "bad", f"its clock is {apart:.1f} s off")
    if seen["free_gib"] < _FREE_GIB:
        yield Finding(name, "note", f"{seen['free_gib']:.1f} GiB free")
    if not seen["token"]:
        yield Finding(name, "note", "no token: whoever reaches its ports can run code (RAY_AUTH_MODE=token)")
    if seen["bucket"]:
        yield Finding(name, "bad", f"{out} cannot be used: {seen['bucket']}")
    gpus = f", {seen['gpus']} GPUs" if seen["gpus"] else ""
    yield Finding(name, "ok", f"answers: {has.get('CPU', 0):.0f} cores{gpus}, {seen['free_gib']:.0f} GiB free")


def _whole(resources: Counter[str], count: int) -> Finding:
    from trainers.run import placement

    said = f"{count} nodes, {resources['CPU']} cores, {resources['GPU']} GPUs"
    if resources[placement.APART] and not resources[placement.STEADY]:
        return Finding("cluster", "note", f"{said}; no steady node yet: a run will wait for one")
    if not resources["CPU"]:
        return Finding("cluster", "note", f"{said}; players' nodes come when a run asks (selfplay.actors=N)")
    return Finding("cluster", "ok", said)


def address_of(given: str | None) -> str:
    """Raises `UserError` where no cluster is named."""
    address = given or os.environ.get("RAY_ADDRESS")
    if not address:
        raise UserError("say which cluster: --address HOST:6379, or RAY_ADDRESS")
    return address
