"""Weights at rest: one safetensors object with a JSON description inside, so that it is written whole or not at all.

No pickle: anyone can open the file with `safetensors.safe_open(path, "np")`; `metadata()["json"]` is the description.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np

from selfplay.errors import Damaged
from selfplay.io import run_files, sealed, storage

#: Rises when readers must know something new to use what `save` writes.
SCHEMA = 1

Tensors = dict[str, np.ndarray]


def digest(tensors: Tensors) -> str:
    """sha256 (hex) over the names in order, and each tensor's dtype, shape and little-endian bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        tensor = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        total.update(f"{name}\0{tensor.dtype.str}\0{tensor.shape}\0".encode())
        total.update(tensor.tobytes())
    return total.hexdigest()


def to_bytes(tensors: Tensors, meta: dict[str, Any]) -> bytes:
    """The safetensors file as bytes. `meta` is JSON-able; the schema and the digest of `tensors` are added to it."""
    from safetensors.numpy import save as encode

    text = sealed.dumps({**meta, "schema": SCHEMA, "digest": digest(tensors)})
    return bytes(encode({k: np.asarray(v, order="C") for k, v in tensors.items()}, metadata={"json": text}))


def from_bytes(data: bytes, source: str) -> tuple[Tensors, dict[str, Any]]:
    """The inverse of `to_bytes`; `source` names the place in errors.

    Raises `Damaged` for something else and for what does not have the digests that it states, `UserError` for a newer
    schema.
    """
    from safetensors.numpy import load as decode

    try:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        meta = sealed.loads(header.get("__metadata__", {})["json"], source, SCHEMA)
        stated = meta["digest"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = "it is empty" if not data else f"it is not a weights file of this package ({type(error).__name__})"
        raise Damaged(source, reason) from error
    try:
        tensors = decode(data)
    except Exception as error:
        raise Damaged(source, str(error)) from error
    if digest(tensors) != stated:
        raise Damaged(source, "its weights do not have the digest that it states")
    return tensors, meta


def save(uri: str, tensors: Tensors, meta: dict[str, Any]) -> None:
    """Writes one object, atomically and durably, over whatever was there."""
    storage.write(uri, to_bytes(tensors, meta), durable=True)


def save_version(run_uri: str, version: int, tensors: Tensors, meta: dict[str, Any]) -> int:
    """Writes a version of a run's weights, under `version`, or the next number where it or a higher one is taken.

    Nothing is written over: a driver that was replaced, and does not know it yet, spoils no version of its successor.
    Who makes the claim has the number; the weights may be too large for the one request that put-if-absent is.
    """
    version = max(version, run_files.newest_taken(run_uri) + 1)
    while not storage.create(run_files.claim_uri(run_uri, version), b""):
        version += 1
    data = to_bytes(tensors, {"kind": "weights", "version": version, **meta})
    storage.write(run_files.weights_uri(run_uri, version), data, durable=True)
    return version


def load(uri: str) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the description (with "schema" and "digest") of what `save` wrote.

    Raises `FileNotFoundError`, or `UserError` as `from_bytes`.
    """
    return from_bytes(storage.read(uri), uri)
