"""The shape of a policy-value net, as a value that is saved beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from selfplay.errors import UserError
from selfplay.net_limits import MOST

Trunk = Literal["auto", "resnet", "mlp"]
#: Rises when the meaning of a field or the names of the tensors change.
SCHEMA = 1


@dataclass(frozen=True)
class NetConfig:
    """Everything that decides which tensors a net has.

    input_shape: of one observation; `(planes, height, width)` or `(features,)`.
    num_actions: A, the distinct actions of the game; the policy head gives A logits.
    outcome: the value head gives win, draw and loss logits; otherwise one number in [-1, 1].
    trunk: "resnet" (3x3 convolutions; needs three input dimensions), "mlp", or "auto": resnet where the input has
      three dimensions, otherwise mlp.
    channels, blocks: width and number of residual blocks of a resnet; a block is two convolutions.
    hidden, layers: width and number of layers of an mlp.
    policy_channels, value_channels: planes that the 1x1 convolutions of the heads keep (resnet).
    value_hidden: width of the value head's hidden layer (resnet).
    policy_planes: actions numbered `[height, width, policy_planes]` over the board come from a convolution, and only
      the actions above height * width * policy_planes (a pass) from a dense layer. None: a dense policy head.
    norm: "batch" (batch normalisation, folded away at inference) or "none" (residual branches start at zero).
    """

    input_shape: tuple[int, ...]
    num_actions: int
    outcome: bool
    trunk: Trunk = "auto"
    channels: int = 32
    blocks: int = 4
    hidden: int = 128
    layers: int = 3
    policy_channels: int = 4
    value_channels: int = 4
    value_hidden: int = 64
    policy_planes: int | None = None
    norm: Literal["batch", "none"] = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(int(n) for n in self.input_shape))
        if self.trunk not in ("auto", "resnet", "mlp"):
            raise UserError(f"net trunk {self.trunk!r} is unknown; it is auto, resnet or mlp")
        if self.norm not in ("batch", "none"):
            raise UserError(f"net norm {self.norm!r} is unknown; it is batch or none")
        if self.trunk == "resnet" and len(self.input_shape) != 3:
            raise UserError(f"a resnet needs an input of three dimensions, not {self.input_shape}; use mlp or auto")
        if not self.input_shape or min(self.input_shape) < 1 or self.num_actions < 1:
            raise UserError(f"a net needs an input and at least one action, got {self.input_shape}, {self.num_actions}")
        for name in ("channels", "blocks", "hidden", "layers", "policy_channels", "value_channels", "value_hidden"):
            if not 1 <= getattr(self, name) <= MOST[name]:
                raise UserError(f"net {name} must be from 1 to {MOST[name]}, got {getattr(self, name)}")
        if self.policy_planes is not None and self.resnet and self.board_actions > self.num_actions:
            raise UserError(
                f"policy_planes={self.policy_planes} needs {self.board_actions} actions, there are {self.num_actions}"
            )

    @property
    def resnet(self) -> bool:
        """Whether the trunk is convolutional, "auto" resolved."""
        return self.trunk == "resnet" or (self.trunk == "auto" and len(self.input_shape) == 3)

    @property
    def board_actions(self) -> int:
        """Actions that the convolutional policy head gives: height * width * policy_planes, 0 without one."""
        if self.policy_planes is None or len(self.input_shape) != 3:
            return 0
        return self.input_shape[1] * self.input_shape[2] * self.policy_planes

    def to_json(self) -> str:
        """One JSON object, keys in the order of the fields."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> NetConfig:
        """The inverse of `to_json`. Raises `UserError` for a newer schema or an unknown field."""
        data: dict[str, Any] = json.loads(text)
        schema = data.pop("schema", 0)
        if schema > SCHEMA:
            raise UserError(f"this net has schema {schema}, newer than the {SCHEMA} known here; upgrade the package")
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise UserError(f"this net has unknown settings: {', '.join(sorted(unknown))}; upgrade the package")
        return cls(**{**data, "input_shape": tuple(data["input_shape"])})
