"""Any causal language model that `transformers` can compute, behind the methods of our own `Transformer`.

Its keys and values lie in our cache, row by row, so that rows may enter and leave a batch at any token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfplay.errors import UserError
from selfplay.nets.language.config import PolicySpec

_FULL, _SLIDING = "full_attention", "sliding_attention"


class Foreign(nn.Module):
    """A model of a Hugging Face directory, with low-rank adapters where the spec wants them."""

    def __init__(self, spec: PolicySpec, dtype: torch.dtype, device: str) -> None:
        """Raises `UserError` where `transformers` cannot load it, or it does more than multiply after its layers."""
        super().__init__()
        from transformers import AutoModelForCausalLM, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            self.net = AutoModelForCausalLM.from_pretrained(
                spec.path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="sdpa",
            )
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"transformers cannot load {spec.path}: {first[:300]}") from None
        self._base = self.net
        self._windows()
        if spec.lora_rank:
            from peft import LoraConfig, get_peft_model

            adapters = LoraConfig(
                r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            self.net = get_peft_model(self.net, adapters)
        self.to(device)
        self.vocab, self.width = map(int, self._base.get_output_embeddings().weight.shape)
        self._probe()

    def train(self, mode: bool = True) -> Foreign:
        """Stays as it is when it generates, without dropout: what is learned from was sampled so."""
        return super().train(False)

    def _windows(self) -> None:
        """Finds out how far its layers look back."""
        config = self._base.config.get_text_config()
        window: int | None = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
        if not kinds <= {_FULL, _SLIDING}:
            raise UserError(f"models of type {config.model_type} have layers that generation does not know: {kinds}")
        self._kinds: dict[str, int | None] = {kind: window if kind == _SLIDING else None for kind in sorted(kinds)}

    def _probe(self) -> None:
        """Raises `UserError` where generation would not compute what the model computes."""
        kind, size = self._base.config.model_type, 6
        ids = torch.arange(2 * size, device=self._base.device).view(2, size) % self.vocab
        rows = torch.arange(2, device=ids.device)
        with torch.no_grad():
            whole = self._base(input_ids=ids).logits.float()
            ours = self.logits(self.hidden(ids)).float()
            try:
                cache = self.cache(2, size)
                lengths = torch.tensor([3, 4], device=ids.device)
                self.prefill(ids[:, :4], lengths, cache, rows, rows)
                steps = [self.step(ids[rows, lengths + i], lengths + i, cache, 5 + i) for i in range(2)]
                last = self.logits(torch.stack(steps, 1)).float()
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
                reason = (str(error).splitlines() or [""])[0][:200]
                raise UserError(f"models of type {kind} cannot generate here, token by token: {reason}") from None
        if not torch.allclose(whole, ours, atol=1e-2, rtol=1e-2):
            raise UserError(f"models of type {kind} change their logits after the last layer, which is not known here")
        at = lengths[:, None] + torch.arange(2, device=ids.device)
        if (last - whole[rows[:, None], at]).abs().max() > 0.1 * whole.std() + 1e-2:
            raise UserError(f"models of type {kind} compute something else token by token, which is not known here")

    def cache(self, rows: int, length: int) -> Any:
        """An empty cache for `prefill` and `step`."""
        return _Rows(rows, length)

    def hidden(self, ids: Tensor) -> Tensor:
        """As `Transformer.hidden`."""
        out: Tensor = self._base.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """As `Transformer.logits`."""
        out: Tensor = self._base.get_output_embeddings()(hidden)
        return out

    def prefill(self, ids: Tensor, lengths: Tensor, cache: _Rows, rows: Tensor, of: Tensor) -> Tensor:
        """As `Transformer.prefill`."""
        cache.begin(rows, of)
        out = self._base.base_model(input_ids=ids, past_key_values=cache.view(), use_cache=True).last_hidden_state
        last: Tensor = out[torch.arange(len(ids), device=ids.device), lengths - 1]
        return last

    def step(self, ids: Tensor, at: Tensor, cache: _Rows, longest: int) -> Tensor:
        """As `Transformer.step`."""
        cache.go_on(at, longest)
        biases = {kind: self._bias(at, longest, window) for kind, window in self._kinds.items()}
        out = self._base.base_model(
            input_ids=ids[:, None],
            position_ids=at[:, None],
            attention_mask=biases if len(biases) > 1 else next(iter(biases.values())),
            past_key_values=cache.view(),
            use_cache=True,
        ).last_hidden_state
        last: Tensor = out[:, 0]
        return last

    def _bias(self, at: Tensor, longest: int, window: int | None) -> Tensor:
        """`[B, 1, 1, longest]`: 0 for places that a row's new token sees, else the least number."""
        places = torch.arange(longest, device=at.device)
        seen = places <= at[:, None]
        if window is not None:
            seen &= places > at[:, None] - window
        bias = torch.zeros(seen.shape, dtype=self._base.dtype, device=at.device)
        return bias.masked_fill_(~seen, torch.finfo(bias.dtype).min)[:, None, None]

    def merged(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """config.json and weights, adapters added in."""
        import copy

        net = copy.deepcopy(self.net).merge_and_unload() if self.net is not self._base else self._base
        tied = net.config.get_text_config().tie_word_embeddings
        head = "lm_head.weight"
        tensors = {n: t.contiguous().cpu().clone() for n, t in net.state_dict().items() if not (tied and n == head)}
        return net.config.to_dict(), tensors


class _Layer:
    """One layer's keys and values, as `transformers` asks for them."""

    is_compileable = False
    is_sliding = False

    def __init__(self, owner: _Rows) -> None:
        self._owner = owner
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def update(self, key: Tensor, value: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        o = self._owner
        if self.keys is None or self.values is None:
            shape = (o.rows, key.shape[1], o.length, key.shape[3])
            self.keys, self.values = key.new_zeros(shape), value.new_zeros((*shape[:3], value.shape[3]))
        if o.at is None:
            self.keys[o.into, :, : key.shape[2]] = key[o.of]
            self.values[o.into, :, : key.shape[2]] = value[o.of]
            return key, value
        n = len(o.at)
        rows = torch.arange(n, device=key.device)
        self.keys[rows, :, o.at], self.values[rows, :, o.at] = key[:, :, 0], value[:, :, 0]
        return self.keys[:n, :, : o.longest], self.values[:n, :, : o.longest]


class _Rows:
    """The cache of all layers, made as they come."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self.layers: list[_Layer] = []
        self.into = self.of = torch.zeros(0, dtype=torch.long)
        self.at: Tensor | None = None
        self.longest = 0

    def begin(self, rows: Tensor, of: Tensor) -> None:
        self.into, self.of, self.at = rows, of, None

    def go_on(self, at: Tensor, longest: int) -> None:
        self.at, self.longest = at, longest

    def move(self, sources: Tensor, targets: Tensor) -> None:
        for layer in self.layers:
            assert layer.keys is not None and layer.values is not None
            layer.keys[targets], layer.values[targets] = layer.keys[sources], layer.values[sources]

    def lengthen(self, length: int) -> None:
        more = length - self.length
        for layer in self.layers:
            assert layer.keys is not None and layer.values is not None
            layer.keys, layer.values = F.pad(layer.keys, (0, 0, 0, more)), F.pad(layer.values, (0, 0, 0, more))
        self.length = length

    def view(self) -> Any:
        from transformers.cache_utils import Cache

        owner = self

        class View(Cache):
            def __init__(self) -> None:
                self.layers = owner.layers
                self.layer_class_to_replicate = None
                self.offloading = False

            def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **named: Any) -> Any:
                while len(owner.layers) <= layer_idx:
                    owner.layers.append(_Layer(owner))
                return owner.layers[layer_idx].update(key, value)

            def get_seq_length(self, layer_idx: int = 0) -> int:
                return 0 if owner.at is None else owner.longest - 1

            def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
                return (query_length, 0) if owner.at is None else (owner.longest, 0)

        return View()
