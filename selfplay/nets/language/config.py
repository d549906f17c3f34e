"""The shape of a language model, as a value that is saved as a Hugging Face `config.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: Architectures of Hugging Face that our own transformer computes; weights of any other run in `transformers`.
NATIVE = ("llama", "qwen2", "smollm3")
#: More than any model needs; a list of them all is made.
_MOST_LAYERS = 10_000
#: Where a fresh model has rotary positions: in every layer, in the first alone, in none.
Positions = Literal["rotary", "first", "none"]


@dataclass(frozen=True)
class LanguageConfig:
    """Everything that decides which tensors a decoder of the Llama family has, and what they mean.

    vocab: tokens. layers, hidden, intermediate: depth and widths. heads, kv_heads: of attention (kv_heads divides
    heads). head_dim: width of a head. context: most tokens of a sequence. rope_theta: base of the rotary positions
    (Su et al., arXiv:2104.09864). rope_factor: what positions are divided by (arXiv:2306.15595). unturned: layers that
    attend without positions (arXiv:2305.19466), as some of SmolLM3 do. qkv_bias: as Qwen2 has. tie: input and output
    embeddings are one tensor.
    """

    vocab: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rope_theta: float = 10_000.0
    rope_factor: float = 1.0
    unturned: tuple[int, ...] = ()
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    tie: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "unturned", tuple(self.unturned))  # JSON has lists

    @property
    def parameters(self) -> int:
        """How many numbers the model has, without a value head."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        layer = attention + biases + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.vocab * self.hidden * (1 if self.tie else 2) + self.layers * layer + self.hidden

    def to_hugging_face(self, eos_token_id: int, pad_token_id: int) -> dict[str, Any]:
        """The `config.json` with which `transformers` computes the same."""
        kind = "qwen2" if self.qkv_bias else "smollm3" if self.unturned else "llama"
        names = {"qwen2": "Qwen2ForCausalLM", "smollm3": "SmolLM3ForCausalLM", "llama": "LlamaForCausalLM"}
        turned = {"no_rope_layers": [int(layer not in self.unturned) for layer in range(self.layers)]}
        return {
            "architectures": [names[kind]],
            "model_type": kind,
            **(turned if kind == "smollm3" else {}),
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": self._rope(),
            "tie_word_embeddings": self.tie,
            "attention_bias": False,
            "mlp_bias": False,
            "use_cache": True,
            "bos_token_id": None,
            "eos_token_id": eos_token_id,
            "pad_token_id": pad_token_id,
            "torch_dtype": "float32",
        }

    def _rope(self) -> dict[str, Any]:
        if self.rope_factor == 1.0:
            return {"rope_type": "default", "rope_theta": self.rope_theta}
        return {"rope_type": "linear", "rope_theta": self.rope_theta, "factor": self.rope_factor}


def from_hugging_face(config: Mapping[str, Any]) -> LanguageConfig | None:
    """The shape that a `config.json` describes; None where our transformer does not compute just that."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    plain = rope_type in ("default", "linear")
    kind = config.get("model_type")
    if kind not in NATIVE or not plain or config.get("hidden_act", "silu") != "silu":
        return None
    if config.get("attention_bias") or config.get("mlp_bias") or config.get("use_sliding_window"):
        return None
    if config.get("quantization_config"):
        return None
    layers = int(config["num_hidden_layers"])
    if not 1 <= layers <= _MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers}")
    unturned: tuple[int, ...] = ()
    if kind == "smollm3":
        every = int(config.get("no_rope_layer_interval") or 4)
        turned = config.get("no_rope_layers") or [(layer + 1) % every for layer in range(layers)]
        unturned = tuple(layer for layer in range(layers) if not turned[layer])
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return LanguageConfig(
        vocab=int(config["vocab_size"]),
        layers=layers,
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        context=int(config["max_position_embeddings"]),
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        rope_factor=float(rope.get("factor", 1.0)) if rope_type == "linear" else 1.0,
        unturned=unturned,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        qkv_bias=kind == "qwen2",
        tie=bool(config.get("tie_word_embeddings", kind == "smollm3")),
    )


def small(
    vocab: int, layers: int, hidden: int, heads: int, context: int, positions: Positions = "rotary"
) -> LanguageConfig:
    """The shape of a fresh small model; its feed-forward part is 8/3 of hidden wide, in multiples of 16."""
    if hidden % heads or (hidden // heads) % 2:
        raise ValueError(f"hidden ({hidden}) must be a multiple of twice the heads ({heads})")
    return LanguageConfig(
        vocab=vocab,
        layers=layers,
        hidden=hidden,
        intermediate=16 * math.ceil(hidden * 8 / 3 / 16),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        context=context,
        unturned=tuple(range({"rotary": layers, "first": 1, "none": 0}[positions], layers)),
    )


@dataclass(frozen=True)
class PolicySpec:
    """All that an actor on another machine needs besides weights; plain values.

    path: of a Hugging Face directory, None for a fresh model. config: of our transformer, None where `transformers`
    computes it. tokenizer: its files. value_head: one more output, the expected return. lora_rank, lora_alpha: of
    low-rank adapters on all linear layers (Hu et al., arXiv:2106.09685); 0: all weights are trained. dtype: of
    weights and arithmetic, "float32" or "bfloat16". context: most tokens of a line.
    """

    path: str | None
    config: LanguageConfig | None
    tokenizer: dict[str, str]
    context: int
    value_head: bool = False
    lora_rank: int = 0
    lora_alpha: int = 32
    dtype: str = "float32"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PolicySpec:
        plain = json.loads(text)
        config = plain.pop("config")
        return cls(config=None if config is None else LanguageConfig(**config), **plain)
