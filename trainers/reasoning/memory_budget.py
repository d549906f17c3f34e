"""Whether a language model fits the memory that there is, and what would."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.errors import UserError
from selfplay.nets.language.config import PolicySpec

_BYTES = {"float32": 4, "bfloat16": 2}
#: Share of a device that weights, gradients and moments may take; the rest is for activations and the cache.
_SHARE = 0.7


@dataclass(frozen=True)
class Footprint:
    """Of a policy in training. parameters: in all; trained: of them; dtype: of generation and of what is frozen."""

    parameters: int
    trained: int
    dtype: str

    @property
    def bytes(self) -> int:
        """Weights, gradients and two moments of what is trained (float32), the rest, and the weights that generate."""
        return 16 * self.trained + _BYTES[self.dtype] * (2 * self.parameters - min(self.trained, self.parameters))


def parameters_of(spec: PolicySpec) -> int:
    """How many numbers a policy has; of a foreign directory by the size of its weights."""
    if spec.config is not None:
        return spec.config.parameters
    from pathlib import Path

    assert spec.path is not None
    stored = sum(file.stat().st_size for file in Path(spec.path).glob("*.safetensors"))
    return stored // 2  # two bytes a number is usual; four would be an overestimate of need


def memory_of(device: str) -> int:
    """Bytes of the GPU, or of this machine's memory that is free."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[1])
    import psutil

    return int(psutil.virtual_memory().available)


def refuse_too_large(footprint: Footprint, device: str, memory: int | None = None) -> None:
    """Raises `UserError`, saying what would fit, where a policy cannot be trained on one device.

    memory: bytes; None: as the device has.
    """
    memory = memory_of(device) if memory is None else memory
    room = _SHARE * memory
    if footprint.bytes <= room:
        return
    where = "this GPU" if device == "cuda" else "this machine"
    fits = int(room // (16 + _BYTES[footprint.dtype]))
    wholly = f"about {fits / 1e9:.2g} B parameters fit with all weights trained in {footprint.dtype}"
    half = Footprint(footprint.parameters, footprint.trained, "bfloat16")
    adapters = Footprint(footprint.parameters, footprint.parameters // 50, "bfloat16")
    hints = []
    if footprint.dtype != "bfloat16" and half.bytes <= room:
        hints.append("policy.dtype=bfloat16")
    elif adapters.bytes <= room:
        hints.append("policy.dtype=bfloat16 with policy.lora_rank=16")
    advice = f"; this one would fit with {hints[0]}" if hints else "; models beyond one device are not trained here"
    raise UserError(
        f"a policy of {footprint.parameters / 1e9:.2g} B parameters needs {footprint.bytes / 2**30:.0f} GiB to be "
        f"trained, {where} has {memory / 2**30:.0f} GiB: {wholly}{advice}"
    )
