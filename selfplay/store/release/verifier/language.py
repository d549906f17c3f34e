"""A language model of the Llama family from its weights, in plain torch, and how likely it finds tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.store.release.verifier.rows import Lie, Row, Unknown

#: In nats a token: float32; bfloat16, at least, and how many times as far as bfloat16 moves the answers of this model.
SPOKEN_EXACTLY, SPOKEN_ROUGHLY, SPOKEN_ROOM = 3e-4, 0.05, 4.0
#: Rounding decides which tokens are in at the edge of top_p (a probability) and of top_k (a logit).
EDGE, SURELY = 1e-5, 1e-3
TOKENS_AT_ONCE, LOGITS_AT_ONCE, MOST_TOKENS = 8192, 512, 2**17


@dataclass(frozen=True, eq=False)
class Answer:
    """A turn that tokens were drawn for. ids: `[T]`, its context and then its own. logprobs: `[own]`, nats.

    how: temperature, top_k, top_p.
    """

    episode: str
    turn: int
    version: Any
    ids: np.ndarray[Any, Any]
    logprobs: np.ndarray[Any, Any]
    how: tuple[float, int | None, float | None]


def answers_of(row: Row) -> Iterator[tuple[str, Answer]]:
    """The turns of a dialogue that a policy with weights drew, each with the digest of these. Raises `Lie`."""
    told = row["reasoning"]
    how, turns = (told["temperature"], told["top_k"], told["top_p"]), told["turns"]
    if how[0] is None:
        return
    for place, turn in enumerate(turns):
        span = next((one for one in row["policy_spans"]
                     if one["first_step"] <= place <= one["last_step"] and one["digest"]), None)  # fmt: skip
        if span is None or turn["logprobs"] is None or not turn["token_ids"]:
            continue
        ids, at = list[int](), place
        while at is not None:
            ids = [*(turns[at]["suffix_ids"] or ()), *(turns[at]["token_ids"] or ()), *ids]
            above = turns[at]["parent"]
            if above is not None and not 0 <= above < at:
                raise Lie(f"turn {at} continues turn {above}, which does not come before it")
            at = above
        drawn = np.array([np.nan if one is None else one for one in turn["logprobs"]], np.float64)
        if len(drawn) != len(turn["token_ids"]) or len(drawn) >= len(ids) or len(ids) > MOST_TOKENS:
            raise Lie(f"turn {place} has no context, or not one log-probability a token")
        yield span["digest"], Answer(row["episode_id"], place, span["version"], np.array(ids, np.int64), drawn, how)


class Speaker:
    """Layers of attention with rotary positions and gated feed-forward parts (arXiv:2302.13971)."""

    def __init__(self, described: str, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        """Raises `Unknown` for a model that these weights alone do not make."""
        import torch

        self.torch = torch
        try:
            told = json.loads(described)
            if told["config"] is None or told["lora_rank"]:
                raise Unknown("it is computed by transformers, or with adapters: its base model is not here")
            self.c, self.rough_runs = told["config"], told["dtype"] == "bfloat16"
            self.sizes = [int(self.c[name]) for name in ("layers", "heads", "kv_heads", "head_dim")]
            self.unturned = set(self.c.get("unturned") or ())
            names = {f"model.model.layers.{i}.self_attn.q_proj.weight" for i in range(min(self.sizes[0], 10_000))}
            if not names <= tensors.keys() or not all(size > 0 for size in self.sizes):
                raise KeyError
            self.numbers = [float(self.c.get(name, usual)) for name, usual in
                            (("rope_theta", 1e4), ("rope_factor", 1.0), ("norm_eps", 1e-6))]  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise Unknown("its row in the table of policies describes no language model of these weights") from None
        self.exact = {name.removeprefix("model."): torch.from_numpy(np.array(t)) for name, t in tensors.items()}
        self.t = self.exact

    def apart(self, answers: list[Answer]) -> Iterator[tuple[Answer, int | None, float]]:
        """Of each answer the first token whose log-probability is another, if any, and what it is here."""
        vocabulary = len(self.exact["model.embed_tokens.weight"])
        strange = [one for one in answers if one.ids.min() < 0 or one.ids.max() >= vocabulary]
        yield from ((one, 0, -math.inf) for one in strange)
        for batch in batched([one for one in answers if one.ids.min() >= 0 and one.ids.max() < vocabulary]):
            exact = self.logprobs(batch)
            far = [nearest(one.logprobs, found) for one, found in zip(batch, exact, strict=True)]
            bound = SPOKEN_EXACTLY
            if self.rough_runs and any((one > bound).any() for one in far):
                rough = self.logprobs(batch, rough=True)
                moved = max(float(np.abs(a[0] - b[0]).max()) for a, b in zip(exact, rough, strict=True))
                bound = max(SPOKEN_ROUGHLY, SPOKEN_ROOM * moved)
            for one, off, found in zip(batch, far, exact, strict=True):
                wrong = np.flatnonzero(~(off <= bound))
                yield (one, int(wrong[0]), float(found[0][wrong[0]])) if len(wrong) else (one, None, 0.0)

    def logprobs(self, batch: list[Answer], rough: bool = False) -> list[np.ndarray[Any, Any]]:
        """Of each answer `[edges, own]`. rough: in bfloat16."""
        torch = self.torch
        kind = torch.bfloat16 if rough else torch.float32
        self.t = {name: tensor.to(kind) for name, tensor in self.exact.items()} if rough else self.exact
        embedding, found = self.t["model.embed_tokens.weight"], []
        ids = np.zeros((len(batch), max(len(one.ids) for one in batch)), np.int64)
        for i, one in enumerate(batch):
            ids[i, : len(one.ids)] = one.ids
        with torch.inference_mode():
            hidden = self.hidden(embedding[torch.from_numpy(ids)])
            head = embedding if self.c.get("tie", True) else self.t["lm_head.weight"]
            for i, one in enumerate(batch):
                parts, end = [], len(one.ids)
                for first in range(end - len(one.logprobs), end, LOGITS_AT_ONCE):
                    last = min(end, first + LOGITS_AT_ONCE)
                    logits = (hidden[i, first - 1 : last - 1] @ head.T).float()
                    parts.append(self.drawn(logits, torch.from_numpy(one.ids[first:last]), one.how))
                found.append(np.concatenate(parts, 1))
        return found

    def hidden(self, x: Any) -> Any:
        """What the last layer says of every token, x: `[N, T, width]`; padding comes after the tokens."""
        torch, (layers, heads, groups, width), (n, length) = self.torch, self.sizes, x.shape[:2]
        theta, factor, _ = self.numbers
        angle = (torch.arange(length)[:, None] / factor) * theta ** -(torch.arange(0, width, 2) / width)
        cos, sin = (turn(torch.cat([angle, angle], 1)).to(x.dtype) for turn in (torch.cos, torch.sin))

        def turned(y: Any) -> Any:
            a, b = y[..., : width // 2], y[..., width // 2 :]
            return y * cos + torch.cat([-b, a], -1) * sin

        for i in range(layers):
            here = f"model.layers.{i}"
            y = self.normed(x, f"{here}.input_layernorm")
            q, k, v = (self.linear(y, f"{here}.self_attn.{part}_proj").view(n, length, -1, width).transpose(1, 2)
                       for part in "qkv")  # fmt: skip
            if i not in self.unturned:
                q, k = turned(q), turned(k)
            k, v = (one.repeat_interleave(heads // groups, 1) for one in (k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.linear(y.transpose(1, 2).reshape(n, length, -1), f"{here}.self_attn.o_proj")
            y = self.normed(x, f"{here}.post_attention_layernorm")
            gate, up = (self.linear(y, f"{here}.mlp.{part}_proj") for part in ("gate", "up"))
            x = x + self.linear(gate * torch.sigmoid(gate) * up, f"{here}.mlp.down_proj")
        return self.normed(x, "model.norm")

    def normed(self, x: Any, name: str) -> Any:
        y = x.float()
        y = y * self.torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.numbers[2])
        return y.to(x.dtype) * self.t[f"{name}.weight"]

    def linear(self, x: Any, name: str) -> Any:
        y, bias = x @ self.t[f"{name}.weight"].T, self.t.get(f"{name}.bias")
        return y if bias is None else y + bias

    def drawn(self, logits: Any, tokens: Any, how: tuple[float, int | None, float | None]) -> np.ndarray[Any, Any]:
        """`[edges, N]`: log-probabilities of tokens for each edge that rounding may have given top_p.

        logits: `[N, vocab]`. Of a model in float32 a token that was surely left out has none. Without a temperature a
        token was certain if it is the likeliest.
        """
        torch, (temperature, top_k, top_p) = self.torch, how
        mine = tokens[:, None]
        own = logits.gather(1, mine)[:, 0]
        if temperature == 0:
            return (own - logits.max(1).values)[None].double().numpy()  # type: ignore[no-any-return]
        scaled, left_out = logits / temperature, torch.zeros_like(logits, dtype=torch.bool)
        surely = torch.zeros(len(tokens), dtype=torch.bool)
        if top_k is not None and top_k < logits.shape[1]:
            left_out |= scaled < scaled.topk(top_k, 1).values[:, -1:]
            surely |= logits.topk(top_k, 1).values[:, -1] - own > SURELY
        outs = [left_out]
        if top_p is not None and top_p < 1:
            share, order = scaled.masked_fill(left_out, -math.inf).softmax(1).sort(1, descending=True)
            likelier = torch.zeros_like(share).scatter(1, order, share.cumsum(1) - share)  # what likelier ones have
            edges = [min(1.0, max(1e-9, top_p + move)) for move in (0.0, -EDGE, EDGE)]
            outs = [left_out | (likelier >= edge) for edge in edges]
            surely |= (likelier.gather(1, mine)[:, 0] >= top_p + SURELY) & (top_p + SURELY < 1)
        found = [scaled.masked_fill(out.scatter(1, mine, False), -math.inf).log_softmax(1).gather(1, mine)[:, 0]
                 for out in outs]  # fmt: skip
        rows = torch.stack(found).double().numpy()
        if not self.rough_runs:
            rows[:, surely.numpy()] = -math.inf
        return rows  # type: ignore[no-any-return]


def nearest(recorded: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    apart = np.abs(found - recorded[None])
    out: np.ndarray[Any, Any] = np.where(np.isnan(apart), np.inf, apart).min(0)
    return out


def batched(answers: list[Answer]) -> Iterator[list[Answer]]:
    """By length, so that little is padded."""
    batch: list[Answer] = []
    for one in sorted(answers, key=lambda one: len(one.ids)):
        if batch and (len(batch) + 1) * len(one.ids) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
