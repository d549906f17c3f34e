"""How the next token is drawn, and the log-probability of what was drawn: one definition for actors and learners."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sampling:
    """The distribution that tokens are drawn from.

    temperature: 0 takes the likeliest token. top_k: only the k likeliest. top_p: only the likeliest tokens that
    together have this probability (Holtzman et al., arXiv:1904.09751), after temperature and top_k. max_tokens: of one
    answer. stop: texts that end an answer, besides the tokenizer's own end.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.max_tokens < 1:
            raise ValueError("temperature must be at least 0 and max_tokens at least 1")
        if (self.top_k is not None and self.top_k < 1) or (self.top_p is not None and not 0 < self.top_p <= 1):
            raise ValueError("top_k must be at least 1, top_p in (0, 1]")


def log_distribution(logits: Tensor, sampling: Sampling, keep: Tensor | None = None) -> Tensor:
    """Log-probabilities `[N, vocab]` float32 (nats) of the distribution that is drawn from; -inf for what it excludes.

    logits: `[N, vocab]`. keep: `[N]` tokens that stay in although top_k or top_p would just leave them out, as rounding
    may let them differ from what the actor saw.
    """
    scaled = logits.float()
    if sampling.temperature == 0:
        chosen = scaled.argmax(-1) if keep is None else keep
        return torch.full_like(scaled, float("-inf")).scatter_(-1, chosen[:, None], 0.0)
    if sampling.temperature != 1:
        scaled = scaled / sampling.temperature
    out = torch.zeros_like(scaled, dtype=torch.bool)
    if sampling.top_k is not None and sampling.top_k < scaled.shape[-1]:
        least = scaled.topk(sampling.top_k, -1).values[:, -1:]
        out |= scaled < least
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = scaled.masked_fill(out, float("-inf")).softmax(-1).sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # the likeliest always stays
        out |= torch.zeros_like(out).scatter_(-1, order, before >= sampling.top_p)
    if sampling.top_k is not None or sampling.top_p is not None:
        if keep is not None:
            out = out.scatter(-1, keep[:, None], False)
        scaled = scaled.masked_fill(out, float("-inf"))
    return F.log_softmax(scaled, -1)


def draw(logits: Tensor, sampling: Sampling, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens `[N]` drawn from logits `[N, vocab]`, and the log-probability `[N]` float32 (nats) of each."""
    logp = log_distribution(logits, sampling)
    if sampling.temperature == 0:
        tokens = logp.argmax(-1)
    else:  # the token in whose part of the whole a uniform number lies; a token that is excluded has no part
        parts = logp.exp().cumsum(-1, dtype=torch.float64)
        places = torch.rand(len(logp), 1, dtype=torch.float64, device=logp.device, generator=rng)
        places *= parts[:, -1:] * (1 - 2**-50)  # less than the whole however it is rounded
        tokens = torch.searchsorted(parts, places, right=True)[:, 0]
    return tokens, logp.gather(-1, tokens[:, None])[:, 0]


def sampled_logprobs(logits: Tensor, tokens: Tensor, sampling: Sampling) -> Tensor:
    """Log-probability `[N]` float32 (nats) of tokens `[N]` under the distribution that they were drawn from."""
    if sampling.top_k is None and sampling.top_p is None and sampling.temperature > 0:
        scaled = logits.float() / sampling.temperature
        return scaled.gather(-1, tokens[:, None])[:, 0] - scaled.logsumexp(-1)
    return log_distribution(logits, sampling, keep=tokens).gather(-1, tokens[:, None])[:, 0]
