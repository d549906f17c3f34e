"""A language-model policy: transformer, tokenizer and, where one is wanted, a value head.

A policy comes from a Hugging Face directory or begins fresh from a small shape; what is saved is a Hugging Face
directory again, which needs nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.nets.inference import pick_device
from selfplay.nets.language.config import LanguageConfig, PolicySpec, from_hugging_face
from selfplay.nets.language.probe import refuse_unusable
from selfplay.nets.language.tokenizer import ENDS_FILE, FILES, Tokenizer
from selfplay.nets.language.transformer import Transformer

VALUE_HEAD = "value_head.safetensors"
_MOST_CONFIG_BYTES, _MOST_TOKENIZER_BYTES = 2**20, 2**28
#: Tokens; tables of positions are made for all of them.
_MOST_CONTEXT = 2**24
#: A model of so few weights and layers is built whatever its files hold: reading these says what is wrong with them.
_CHEAP = 2**24, 200


class LanguagePolicy(nn.Module):
    """Transformer and value head; `model` has the methods of `Transformer`."""

    def __init__(self, spec: PolicySpec, model: nn.Module, device: str) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = Tokenizer(spec.tokenizer)
        self.model = model
        self.device = device
        width = spec.config.hidden if spec.config is not None else model.width
        self.value_head = nn.Linear(width, 1, device=device) if spec.value_head else None
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def values(self, hidden: Tensor) -> Tensor:
        """Expected return `[...]` float32, of the seat that writes, of hidden states `[..., width]`."""
        assert self.value_head is not None
        out: Tensor = self.value_head(hidden.float())[..., 0]
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What training changes: name -> float32 array."""
        return {name: p.detach().float().cpu().numpy().copy() for name, p in self.trained()}

    def from_arrays(self, tensors: dict[str, np.ndarray]) -> None:
        """The inverse of `to_arrays`. Raises `UserError` for those of another model."""
        own = dict(self.trained())
        if own.keys() != tensors.keys() or any(own[n].shape != tensors[n].shape for n in own):
            raise UserError("these weights are of another language model")
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(torch.from_numpy(np.asarray(tensors[name])))

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that training changes."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]


def fresh(spec: PolicySpec, seed: int, device: str = "cpu") -> LanguagePolicy:
    """A policy as the spec says: random weights from `seed`, or those of its directory."""
    device = pick_device(device)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[spec.dtype]
    model: nn.Module
    if spec.config is not None and not spec.lora_rank:
        model = Transformer(spec.config)
        if spec.path is None:
            model.start(seed)
        else:
            _read_weights(model, spec.path)
        model = model.to(device=device, dtype=dtype)
    else:
        from selfplay.nets.language.foreign import Foreign

        if spec.path is None:
            raise UserError("low-rank adapters (lora_rank) need a model that has learned something: give policy.path")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the adapters
            model = Foreign(spec, dtype, device)
    policy = LanguagePolicy(spec, model, device)
    if policy.value_head is not None and spec.path is not None and (Path(spec.path) / VALUE_HEAD).is_file():
        _read_value_head(policy.value_head, Path(spec.path) / VALUE_HEAD)
    return policy


def load(
    path: str, value_head: bool = False, lora_rank: int = 0, lora_alpha: int = 32, dtype: str = "float32"
) -> PolicySpec:
    """Reads what a Hugging Face directory says of itself.

    Raises `UserError` for a directory that is none, lacks a file, or needs code of its own.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"policy.path {path} is no directory; give one with config.json, weights and tokenizer.json")
    for file in folder.iterdir():  # libraries open some of them, and would wait at a pipe without end
        with contextlib.suppress(FileNotFoundError):
            storage.refuse_irregular(str(file), file.stat())
    try:
        config = json.loads(storage.read(str(folder / "config.json"), _MOST_CONFIG_BYTES))
    except FileNotFoundError:
        raise UserError(f"policy.path {path} is no Hugging Face model: it has no config.json") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}/config.json is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}/config.json is not JSON of a model: it holds no object")
    if config.get("auto_map"):
        raise UserError(f"{path} needs Python code of its own (auto_map in config.json), which is never run here")
    if (kernel := _kernel(config)) is not None:
        raise UserError(f"{path}/config.json asks for code from elsewhere ({kernel}), which is never loaded here")
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{path} holds adapters for another model (adapter_config.json); merge them into it first")
    _refuse_weights_elsewhere(folder)
    if not _weight_files(folder):
        raise UserError(f"{path} holds no weights (*.safetensors; pickled weights are never loaded)")
    try:
        files = {
            name: storage.read(str(folder / name), _MOST_TOKENIZER_BYTES).decode()
            for name in FILES
            if (folder / name).exists()
        }
    except (ValueError, OSError) as error:
        raise UserError(f"the tokenizer in {path} cannot be read: {error}") from None
    refuse_unusable(files, f"the tokenizer in {path}")
    tokenizer = Tokenizer(files, f"the tokenizer in {path}")
    ends = _ends(folder, config, tokenizer)
    if set(ends) - set(tokenizer.eos):
        files[ENDS_FILE] = json.dumps({"eos_token_id": ends})
    try:
        native = from_hugging_face(config)
        context = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
        vocab = int(config.get("vocab_size") or 0)
    except KeyError as error:
        raise UserError(f"{path}/config.json describes no language model: it lacks {error}") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}/config.json describes no language model: {error}") from None
    if native is not None:
        _refuse_giant(native, folder)
    if not context:
        raise UserError(f"{path}/config.json does not say how long a context may be (max_position_embeddings)")
    if tokenizer.size > vocab:
        raise UserError(f"{path}: the tokenizer has {tokenizer.size} tokens, the model {vocab}")
    return PolicySpec(
        path=str(folder.resolve()),
        config=native,
        tokenizer=files,
        context=context,
        value_head=value_head,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        dtype=dtype,
    )


def save(policy: LanguagePolicy, uri: str) -> None:
    """Writes a Hugging Face directory: `transformers` loads it with nothing of ours. A value head lies beside."""
    from safetensors.torch import save as encode

    spec, tokenizer = policy.spec, policy.tokenizer
    if isinstance(policy.model, Transformer):
        config = policy.model.config.to_hugging_face(tokenizer.eos[0], tokenizer.pad)
        tensors = {name: value.contiguous().cpu() for name, value in policy.model.state_dict().items()}
        config["torch_dtype"] = spec.dtype
        storage.write(storage.join(uri, "model.safetensors"), encode(tensors, {"format": "pt"}))
    else:
        config, tensors = policy.model.merged()
        storage.write(storage.join(uri, "model.safetensors"), encode(tensors, {"format": "pt"}))
    for name, text in spec.tokenizer.items():
        storage.write(storage.join(uri, name), text.encode())
    if policy.value_head is not None:
        head = {name: value.cpu() for name, value in policy.value_head.state_dict().items()}
        storage.write(storage.join(uri, VALUE_HEAD), encode(head, {"format": "pt"}))
    storage.write(storage.join(uri, "config.json"), json.dumps(config, indent=2).encode())  # last: it is complete now


def _ends(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> list[int]:
    """All tokens that end an answer: the tokenizer's, and those of the model's settings.

    Raises `UserError` where these name what is no token.
    """
    named = [("config.json", config), ("config.json", config.get("text_config"))]
    try:
        text = storage.read(str(folder / ENDS_FILE), _MOST_CONFIG_BYTES)
        named.append((ENDS_FILE, json.loads(text)))
    except FileNotFoundError:
        pass
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{folder}/{ENDS_FILE} is not JSON: {error}") from None
    found = [i for name, settings in named for i in tokenizer.ends_of(settings, f"{folder}/{name}")]
    return list(dict.fromkeys((*tokenizer.eos, *found)))


def _kernel(config: Any) -> str | None:
    """The setting, at any depth, with which `transformers` would fetch a kernel from the Hub and run it.

    It does so for attention of the name OWNER/REPOSITORY; the other names that it knows have no slash.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if not isinstance(value, dict):
            continue
        waiting += value.values()
        for name, given in value.items():
            if name.endswith(("_implementation", "_implementation_internal")) and "/" in str(given):
                return f"{name} = {str(given)!r:.80}"
    return None


def _refuse_weights_elsewhere(folder: Path) -> None:
    """Raises `UserError` where the index of the weights, which `transformers` follows, leads out of the folder."""
    for file in folder.glob("*.safetensors.index.json"):
        try:
            files = set(json.loads(storage.read(str(file), _MOST_TOKENIZER_BYTES))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{file} is not an index of weights") from None
        outside = next((name for name in files if not isinstance(name, str) or Path(name).name != name), None)
        if outside is not None:
            raise UserError(f"{file} names weights outside its folder: {outside!r:.80}")


def _refuse_giant(config: LanguageConfig, folder: Path) -> None:
    """Raises `UserError` where the sizes that config.json states make no model, or a larger one than its weights are.

    It would be built, in memory, before any weight is read.
    """
    sizes = (config.vocab, config.layers, config.hidden, config.intermediate, config.heads, config.kv_heads)
    if min(*sizes, config.head_dim) < 1 or not 0 < config.context <= _MOST_CONTEXT:
        raise UserError(f"{folder}/config.json describes no language model: a size in it is out of range")
    least = config.vocab * config.hidden + 3 * config.layers * config.hidden * config.intermediate
    stored = sum(file.stat().st_size for file in _weight_files(folder))
    if least > stored and (least > _CHEAP[0] or config.layers > _CHEAP[1]):  # a weight has a byte or more
        raise UserError(
            f"{folder}/config.json describes a model of {least:,} weights or more, and its files have {stored:,} bytes"
        )


def _weight_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.safetensors") if p.name != VALUE_HEAD)


def _read_value_head(head: nn.Linear, file: Path) -> None:
    from safetensors.torch import load_file

    try:
        head.load_state_dict(load_file(str(file)))
    except Exception as error:
        raise UserError(f"{file} is no value head of this model: {str(error)[:200]}") from None


def _read_weights(model: Transformer, path: str) -> None:
    from safetensors import SafetensorError, safe_open

    own: dict[str, Any] = dict(model.state_dict())
    missing = set(own)
    with torch.no_grad():
        for file in _weight_files(Path(path)):
            try:
                with safe_open(str(file), "pt") as tensors:
                    for name in tensors.keys():
                        if name in own:
                            given = tensors.get_tensor(name)
                            if given.shape != own[name].shape:
                                shapes = f"{list(given.shape)}, and {list(own[name].shape)} follow from its config.json"
                                raise UserError(f"{file} does not fit its config.json: {name} is {shapes}")
                            own[name].copy_(given)
                            missing.discard(name)
            except (SafetensorError, OSError, RuntimeError) as error:
                raise UserError(f"{file} holds no weights that can be read: {error}") from None
    if missing:
        raise UserError(f"{path}: the weights lack {len(missing)} tensors, {sorted(missing)[0]} among them")
