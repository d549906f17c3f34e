"""A policy-value net from its description and its weights, in plain torch, and what it says of a position."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np

from selfplay.store.release.verifier.rows import Lie, Row, Unknown

#: env_id -> for each seat the order of the observation's planes that its net was shown; written by who released.
SEAT_PLANES: dict[str, list[list[int]]] = {}
MOST_HEADER_BYTES = 2**24
EPSILON = 1e-5


def tensors_of(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The float32 tensors of a safetensors file. Raises `ValueError`."""
    (size,) = struct.unpack("<Q", data[:8])
    if size > MOST_HEADER_BYTES:
        raise ValueError("its header is too long")
    found = {}
    for name, one in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + int(place) for place in one["data_offsets"])
        shape = tuple(int(n) for n in one["shape"])
        if one["dtype"] != "F32" or not 8 + size <= begin <= end <= len(data) or end - begin != 4 * math.prod(shape):
            raise ValueError(f"its tensor {name!r:.60} is not float32, or not where it is said to be")
        found[name] = np.frombuffer(data[begin:end], "<f4").reshape(shape)
    return found


def digest_of(tensors: dict[str, np.ndarray[Any, Any]]) -> str:
    """sha256 (hex) over the names in order, and each tensor's dtype, shape and little-endian bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name}\0<f4\0{tensors[name].shape}\0".encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return total.hexdigest()


class Net:
    """A residual tower or dense layers, with a policy head and a value head. bfloat16: rounds as such hardware does."""

    def __init__(self, described: str, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        import torch

        self.torch, self.told = torch, json.loads(described)
        self.shape = tuple(int(n) for n in self.told["input_shape"])
        self.tower = self.told.get("trunk", "auto") == "resnet" or (
            self.told.get("trunk", "auto") == "auto" and len(self.shape) == 3
        )
        self.exact = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
        self.t = self.exact

    def __call__(self, x: np.ndarray[Any, Any], rough: bool = False) -> tuple[Any, Any]:
        """`[N, *shape]` float32 -> logits `[N, A]` and values `[N]` in [-1, 1], point of view of the seat to act."""
        kind = self.torch.bfloat16 if rough else self.torch.float32
        self.t = {name: tensor.to(kind) for name, tensor in self.exact.items()} if rough else self.exact
        with self.torch.inference_mode():
            given = self.torch.from_numpy(x).to(kind)
            logits, value = self.heads(self.trunk(given)) if self.tower else self.dense(given.flatten(1))
            logits, value = logits.double(), value.double()
            if value.shape[1] == 1:
                return logits.numpy(), self.torch.tanh(value[:, 0]).numpy()
            share = self.torch.softmax(value, 1)
            return logits.numpy(), (share[:, 0] - share[:, 2]).numpy()

    def linear(self, x: Any, name: str) -> Any:
        return x @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]

    def dense(self, x: Any) -> Any:
        for i in range(int(self.told["layers"])):
            x = self.torch.relu(self.linear(x, f"layers.{i}"))
        return self.linear(x, "policy"), self.linear(x, "value")

    def conv(self, x: Any, name: str, norm: str | None) -> Any:
        weight = self.t[f"{name}.weight"]
        y = self.torch.nn.functional.conv2d(x, weight, self.t.get(f"{name}.bias"), padding=weight.shape[-1] // 2)
        if norm is None:
            return y
        scale, shift = self.t[f"{norm}.weight"], self.t[f"{norm}.bias"]
        if self.told.get("norm", "batch") == "batch":
            y = y - self.t[f"{norm}.mean"][:, None, None]
            scale = scale * (self.t[f"{norm}.var"] + EPSILON) ** -0.5
        return y * scale[:, None, None] + shift[:, None, None]

    def trunk(self, x: Any) -> Any:
        relu = self.torch.relu
        x = relu(self.conv(x, "stem", "stem_norm"))
        for i in range(int(self.told["blocks"])):
            y = relu(self.conv(x, f"blocks.{i}.conv1", f"blocks.{i}.norm1"))
            x = relu(x + self.conv(y, f"blocks.{i}.conv2", f"blocks.{i}.norm2"))
        return x

    def heads(self, x: Any) -> Any:
        kept, split = self.torch.relu(self.conv(x, "heads", "heads_norm")), int(self.told["policy_channels"])
        logits = []
        if "policy_board.weight" in self.t:  # [N, planes, H, W] -> actions numbered [H, W, planes]
            logits.append(self.conv(x, "policy_board", None).permute(0, 2, 3, 1).flatten(1))
        if "policy.weight" in self.t:
            logits.append(self.linear(kept[:, :split].flatten(1), "policy"))
        hidden = self.torch.relu(self.linear(kept[:, split:].flatten(1), "value_hidden"))
        return self.torch.cat(logits, 1), self.linear(hidden, "value")


def shown_to_net(state: Any, env_id: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """What the seat to act is shown: its observation, the planes in its order, or a plane more that says who acts."""
    seat, kind = state.current_player(), state.get_game().get_type()
    read = state.observation_tensor if kind.provides_observation_tensor else state.information_state_tensor
    raw = np.array(read(seat), np.float32)
    order = SEAT_PLANES.get(env_id)
    if order is not None:
        raw = raw.reshape(len(order[seat]), -1)[order[seat]].reshape(-1)
    missing = math.prod(shape) - len(raw)
    if missing < 0 or (order is not None and missing):
        raise Unknown(f"its weights are of a net that is not shown {env_id} as OpenSpiel shows it")
    return np.append(raw, np.full(missing, seat, np.float32)).reshape(shape)


def stated(row: Row | None, tensors: dict[str, np.ndarray[Any, Any]]) -> Net:
    """The net of a row of the table of policies."""
    if row is None or not row.get("net"):
        raise Unknown("the table of policies does not describe its net")
    try:
        return Net(row["net"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Lie(f"the table of policies does not describe the net of its weights ({type(error).__name__})") from None
