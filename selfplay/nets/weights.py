"""Weights at rest: one safetensors object with a JSON description inside, so that it is written whole or not at all.

No pickle: anyone can open the file with `safetensors.safe_open(path, "np")`; `metadata()["json"]` is the description.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np

from selfplay import run_files, storage
from selfplay.errors import UserError

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

    text = json.dumps({**meta, "schema": SCHEMA, "digest": digest(tensors)}, sort_keys=True)
    return bytes(encode({k: np.asarray(v, order="C") for k, v in tensors.items()}, metadata={"json": text}))


def from_bytes(data: bytes, source: str) -> tuple[Tensors, dict[str, Any]]:
    """The inverse of `to_bytes`; `source` names the place in errors.

    Raises `UserError` for something else, a newer schema, or bytes that do not have the digest they claim.
    """
    from safetensors.numpy import load as decode

    try:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        meta = json.loads(header.get("__metadata__", {})["json"])
        schema = int(meta["schema"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is not a weights file of this package ({type(error).__name__})") from error
    if schema > SCHEMA:
        raise UserError(f"{source} has schema {schema}, newer than the {SCHEMA} known here; upgrade the package")
    try:
        tensors = decode(data)
    except Exception as error:
        raise UserError(f"{source} is damaged: {error}") from error
    if digest(tensors) != meta["digest"]:
        raise UserError(f"{source} is damaged: its weights do not have the digest that it states")
    return tensors, meta


def save(uri: str, tensors: Tensors, meta: dict[str, Any]) -> None:
    """Writes one object, atomically, over whatever was there."""
    storage.write(uri, to_bytes(tensors, meta))


def save_version(run_uri: str, version: int, tensors: Tensors, meta: dict[str, Any]) -> int:
    """Writes a version of a run's weights, under the first free number from `version` on; the number.

    Nothing is written over: a driver that was replaced, and does not know it yet, spoils no version of its successor.
    Who makes the claim has the number; the weights may be too large for the one request that put-if-absent is.
    """
    while not storage.create(run_files.claim_uri(run_uri, version), b""):
        version += 1
    data = to_bytes(tensors, {"kind": "weights", "version": version, **meta})
    storage.write(run_files.weights_uri(run_uri, version), data)
    return version


def load(uri: str) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the description (with "schema" and "digest") of what `save` wrote.

    Raises `FileNotFoundError`, or `UserError` as `from_bytes`.
    """
    return from_bytes(storage.read(uri), uri)
