"""A decoder of the Llama family (arXiv:2302.13971) in plain torch, with the tensor names of Hugging Face.

It computes what `transformers` computes for the same weights, with less work around the arithmetic: small models spend
most of their time there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfplay.nets.language.config import LanguageConfig


class Cache:
    """Keys and values of up to `rows` sequences of up to `length` tokens.

    values: a tensor a layer, `[rows, kv_heads, length, head_dim]`. keys: the same, or, where `columns`,
    `[rows, kv_heads, head_dim, length]`: a processor multiplies by them faster, one query at a time.
    """

    def __init__(self, config: LanguageConfig, rows: int, length: int, dtype: torch.dtype, device: str) -> None:
        shape = (rows, config.kv_heads, length, config.head_dim)
        self.columns = dtype == torch.float32 and torch.device(device).type == "cpu"
        turned = (*shape[:2], config.head_dim, length) if self.columns else shape
        self.keys = [torch.zeros(turned, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copies rows over others."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[targets] = tensor[sources]

    def lengthen(self, length: int) -> None:
        """Makes room for longer sequences; what is there stays."""
        more = length - self.values[0].shape[2]
        self.keys[:] = [F.pad(keys, (0, more) if self.columns else (0, 0, 0, more)) for keys in self.keys]
        self.values[:] = [F.pad(values, (0, 0, 0, more)) for values in self.values]

    def fill(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """The first places of `rows` `[M]`. k, v: `[M, kv_heads, T, head_dim]`."""
        t = k.shape[2]
        if self.columns:
            self.keys[layer][rows, :, :, :t] = k.transpose(2, 3)
        else:
            self.keys[layer][rows, :, :t] = k
        self.values[layer][rows, :, :t] = v

    def write(self, layer: int, rows: Tensor, at: Tensor, k: Tensor, v: Tensor) -> None:
        """One place of each of `rows` `[B]`, `at` `[B]`. k, v: `[B, kv_heads, head_dim]`."""
        if self.columns:
            self.keys[layer][rows, :, :, at] = k
        else:
            self.keys[layer][rows, :, at] = k
        self.values[layer][rows, :, at] = v

    def attend(self, layer: int, q: Tensor, bias: Tensor) -> Tensor:
        """From one query a row, q `[B, heads, 1, head_dim]`, to the first L places of the first B rows: like q.

        bias: `[B, 1, 1, L]`, 0 for places that are there and -inf for others.
        """
        n, heads, _, width = q.shape
        length, keys, values = bias.shape[-1], self.keys[layer][:n], self.values[layer][:n]
        groups = values.shape[1]
        if not self.columns:
            # Heads that share keys stand as queries of one head: `enable_gqa` with a mask would copy the keys.
            k, v, together = keys[:, :, :length], values[:, :, :length], q.reshape(n, groups, heads // groups, width)
            return F.scaled_dot_product_attention(together, k, v, attn_mask=bias).reshape(n, heads, 1, width)
        k, v = keys.flatten(0, 1)[:, :, :length], values.flatten(0, 1)[:, :length]
        off = bias[:, 0].expand(n, groups, length).reshape(n * groups, 1, length)
        weights = torch.baddbmm(off, q.reshape(n * groups, heads // groups, width), k, alpha=width**-0.5).softmax(-1)
        return torch.bmm(weights, v).view(n, heads, 1, width)


class _Norm(nn.Module):
    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self._eps)


class _Attention(nn.Module):
    def __init__(self, c: LanguageConfig, layer: int) -> None:
        super().__init__()
        self._c = c
        self._turned = layer not in c.unturned
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)

    def heads(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[B, heads, T, head_dim]` of `x` `[B, T, hidden]`, queries and keys turned."""
        c, (b, t, _) = self._c, x.shape
        q = self.q_proj(x).view(b, t, c.heads, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        return (_turned(q, cos, sin), _turned(k, cos, sin), v) if self._turned else (q, k, v)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attends from each token to itself and those before it; returns keys and values, too."""
        q, k, v = self.heads(x, cos, sin)
        grouped = self._c.kv_heads != self._c.heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return self._joined(out), k, v

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, layer: int, at: Tensor, bias: Tensor) -> Tensor:
        """Attends from one new token a row, at `at` `[B]`, to those in the cache, it included. bias: of `attend`."""
        q, k, v = self.heads(x, cos, sin)
        cache.write(layer, torch.arange(len(x), device=x.device), at, k[:, :, 0], v[:, :, 0])
        return self._joined(cache.attend(layer, q, bias))

    def _joined(self, heads: Tensor) -> Tensor:
        joined: Tensor = self.o_proj(heads.transpose(1, 2).flatten(2))
        return joined


class _Feedforward(nn.Module):
    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.intermediate, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.intermediate, bias=False)
        self.down_proj = nn.Linear(c.intermediate, c.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, c: LanguageConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = _Norm(c.hidden, c.norm_eps)
        self.self_attn = _Attention(c, layer)
        self.post_attention_layernorm = _Norm(c.hidden, c.norm_eps)
        self.mlp = _Feedforward(c)


class _Trunk(nn.Module):
    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(_Layer(c, layer) for layer in range(c.layers))
        self.norm = _Norm(c.hidden, c.norm_eps)


class Transformer(nn.Module):
    """`hidden` for training, `prefill` and `step` for generation; `logits` of any of their results."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab = config.vocab
        self.model = _Trunk(config)
        if not config.tie:
            self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        places = torch.arange(config.context, dtype=torch.float32)[:, None] / config.rope_factor
        angles = places / config.rope_theta**pairs
        turns = torch.cat([angles, angles], 1)
        self.register_buffer("cos", turns.cos(), persistent=False)
        self.register_buffer("sin", turns.sin(), persistent=False)

    def cache(self, rows: int, length: int) -> Cache:
        """An empty cache for `prefill` and `step`."""
        weight = self.model.embed_tokens.weight
        return Cache(self.config, rows, length, weight.dtype, str(weight.device))

    def start(self, seed: int) -> None:
        """Random first weights, the same for the same seed: normal, those that end a residual branch smaller."""
        rng = torch.Generator().manual_seed(seed)
        branch = (2 * self.config.layers) ** -0.5
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim < 2:
                    p.fill_(0.0 if name.endswith("bias") else 1.0)
                else:
                    last = name.endswith(("o_proj.weight", "down_proj.weight"))
                    scale = 0.1 if "embed" in name else p.shape[1] ** -0.5
                    p.normal_(0.0, scale * (branch if last else 1.0), generator=rng)

    def hidden(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """`[B, T, hidden]` of `ids` `[B, T]`; padding may only follow the tokens.

        positions: `[B, T]`, rising along a line and below the context; None: 0, 1, 2 and so on.
        """
        x = self.model.embed_tokens(ids)
        cos, sin = self._turns(slice(0, ids.shape[1]) if positions is None else positions, x.dtype)
        if positions is not None:
            cos, sin = cos[:, None], sin[:, None]
        for layer in self.model.layers:
            x = x + layer.self_attn(layer.input_layernorm(x), cos, sin)[0]
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., vocab]`."""
        weight = self.model.embed_tokens.weight if self.config.tie else self.lm_head.weight
        return F.linear(hidden, weight)

    def prefill(self, ids: Tensor, lengths: Tensor, cache: Cache, rows: Tensor, of: Tensor) -> Tensor:
        """Hidden state `[N, hidden]` at the last token of each of N prompts, right-padded in `ids` `[N, T]`.

        The cache's rows `rows` `[M]` take the prompts `of` `[M]`: many samples of one prompt cost one pass.
        """
        x = self.model.embed_tokens(ids)
        cos, sin = self._turns(slice(0, ids.shape[1]), x.dtype)
        for i, layer in enumerate(self.model.layers):
            out, k, v = layer.self_attn(layer.input_layernorm(x), cos, sin)
            cache.fill(i, rows, k[of], v[of])
            x = x + out
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last: Tensor = self.model.norm(x[torch.arange(len(ids), device=ids.device), lengths - 1])
        return last

    def step(self, ids: Tensor, at: Tensor, cache: Cache, longest: int) -> Tensor:
        """Hidden state `[B, hidden]` of one new token `ids` `[B]` a row, at position `at` `[B]`: the cache's first B.

        longest: the largest position among them, plus 1.
        """
        x = self.model.embed_tokens(ids)[:, None]
        cos, sin = self._turns(at, x.dtype)
        cos, sin = cos[:, None, None], sin[:, None, None]
        there = torch.arange(longest, device=ids.device) <= at[:, None]
        bias = torch.zeros(there.shape, dtype=x.dtype, device=x.device).masked_fill_(~there, float("-inf"))
        bias = bias[:, None, None]
        for i, layer in enumerate(self.model.layers):
            x = x + layer.self_attn.step(layer.input_layernorm(x), cos, sin, cache, i, at, bias)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        out: Tensor = self.model.norm(x[:, 0])
        return out

    def _turns(self, at: slice | Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.cos[at].to(dtype), self.sin[at].to(dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin
