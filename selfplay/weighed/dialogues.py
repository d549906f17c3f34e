"""Log-probabilities of sampled tokens, computed again by the language model that their span names.

Bounds, in nats a token. Models in float32: `EXACT` (measured: 6e-6 at most). Models in bfloat16: an honest number may
differ as far as rounding moves the outputs of this very model: its answers are also computed in bfloat16, and a token
may be `ROOM` times as far from float32 as the two are from each other at most, and `REDUCED` at least.

At the edge of top_p, rounding decides whether a token is in: three edges are tried, and the nearest counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from selfplay.episode import Episode, PolicySpan
from selfplay.errors import UserError
from selfplay.nets import weights
from selfplay.nets.language.config import LanguageConfig
from selfplay.nets.language.transformer import Transformer
from selfplay.rollout.sampling import Sampling, log_distribution, sampled_logprobs

Array = np.ndarray[Any, Any]

EXACT = 3e-4
REDUCED = 0.05
ROOM = 4.0
_EDGE, _SURELY = 1e-5, 1e-3
_TOKENS_AT_ONCE, _LOGITS_AT_ONCE = 8192, 1024
_MOST_TOKENS = 2**17


@dataclass(frozen=True)
class Answer:
    """A sampled turn. row: of its episode. ids: `[T]` int64, its context and then its own `own` tokens.

    logprobs: `[own]` as recorded, nats.
    """

    row: int
    turn: int
    span: PolicySpan
    ids: Array
    own: int
    logprobs: Array
    sampling: Sampling


def answers_of(row: int, episode: Episode) -> list[Answer]:
    """The turns that a policy with known weights sampled. Raises `ValueError` where turns do not follow each other."""
    record = episode.reasoning
    assert record is not None
    turns = record["turns"]
    if record["temperature"] is None:
        return []
    found = []
    for place, turn in enumerate(turns):
        span = next((s for s in episode.policy_spans if s.first_step <= place <= s.last_step and s.digest), None)
        if span is None or turn["logprobs"] is None or not turn["token_ids"]:
            continue
        ids: list[int] = []
        at: int | None = place
        path = []
        while at is not None:
            path.append(at)
            parent = turns[at]["parent"]
            if parent is not None and not 0 <= parent < at:
                raise ValueError(f"turn {at} continues turn {parent}, which does not come before it")
            at = parent
        for one in reversed(path):
            ids += [*(turns[one]["suffix_ids"] or ()), *(turns[one]["token_ids"] or ())]
        own = len(turn["token_ids"])
        if own >= len(ids) or len(turn["logprobs"]) != own or len(ids) > _MOST_TOKENS:
            raise ValueError(f"turn {place} has no context, or not one log-probability a token")
        sampling = Sampling(record["temperature"], record["top_k"], record["top_p"])
        logprobs = np.array([np.nan if one is None else one for one in turn["logprobs"]], np.float64)
        found.append(Answer(row, place, span, np.array(ids, np.int64), own, logprobs, sampling))
    return found


class Language:
    """One version of a language model of ours."""

    def __init__(self, net: str, tensors: weights.Tensors) -> None:
        """net: of its row in the table of policies. Raises `UserError` where these are not the weights of such a model,
        and for models that are computed elsewhere (`transformers`, adapters): those weights alone do not make one.
        """
        config, dtype = _shape(net)
        wanted = f"model.model.layers.{config.layers - 1}.mlp.down_proj.weight"
        embedding = tensors.get("model.model.embed_tokens.weight")
        if wanted not in tensors or embedding is None or embedding.shape != (config.vocab, config.hidden):
            raise UserError("its weights are not those of the model that its row in the table of policies describes")
        self._config = config
        self.reduced = dtype == "bfloat16"
        try:
            with torch.device("meta"):
                meta = Transformer(replace(config, context=1))
        except (TypeError, ValueError, ArithmeticError, RuntimeError):
            raise UserError("its row in the table of policies describes no language model") from None
        shapes = {name: tuple(p.shape) for name, p in meta.named_parameters()}
        mine = {name.removeprefix("model."): t for name, t in tensors.items() if not name.startswith("value_head.")}
        if {name: tensor.shape for name, tensor in mine.items()} != shapes:
            raise UserError("its weights are not those of the model that its row in the table of policies describes")
        self._tensors = mine
        self._models: dict[torch.dtype, Transformer] = {}

    def _model(self, length: int, dtype: torch.dtype) -> Transformer:
        model = self._models.get(dtype)
        if model is None or model.config.context < length:
            model = Transformer(replace(self._config, context=max(256, length)))
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(torch.from_numpy(np.asarray(self._tensors[name])))
            model = self._models[dtype] = model.to(dtype).eval().requires_grad_(False)
        return model

    def knows(self, answer: Answer) -> bool:
        """Whether all tokens of an answer and its context are in the model's vocabulary."""
        return bool(answer.ids.min() >= 0 and answer.ids.max() < self._config.vocab)

    def apart(self, answers: Sequence[Answer]) -> Iterator[tuple[Answer, Array, Array, float]]:
        """For each answer its distances `[own]` in nats, what was computed `[own]`, and the bound.

        answers: that the model `knows`.
        """
        for batch in _batches(answers):
            exact = self._logprobs(batch, torch.float32)
            distances = [_nearest(one.logprobs, found) for one, found in zip(batch, exact, strict=True)]
            bound = EXACT
            if self.reduced and any((d > EXACT).any() for d in distances):
                rough = self._logprobs(batch, torch.bfloat16)
                both = [np.abs(a[0] - b[0]) for a, b in zip(exact, rough, strict=True)]
                bound = max(REDUCED, ROOM * max(float(one.max()) for one in both))
            for one, far, found in zip(batch, distances, exact, strict=True):
                yield one, far, found[0], bound

    @torch.inference_mode()
    def _logprobs(self, batch: Sequence[Answer], dtype: torch.dtype) -> list[Array]:
        """Of each answer `[edges, own]`."""
        longest = max(len(one.ids) for one in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        for i, one in enumerate(batch):
            ids[i, : len(one.ids)] = one.ids
        model = self._model(longest, dtype)
        hidden = model.hidden(torch.from_numpy(ids))
        out = []
        for i, one in enumerate(batch):
            end = len(one.ids)
            parts = []
            for first in range(end - one.own, end, _LOGITS_AT_ONCE):
                last = min(end, first + _LOGITS_AT_ONCE)
                logits = model.logits(hidden[i, first - 1 : last - 1])
                parts.append(_of(logits, torch.from_numpy(one.ids[first:last]), one.sampling, not self.reduced))
            out.append(np.concatenate(parts, 1))
        return out


def _of(logits: torch.Tensor, tokens: torch.Tensor, sampling: Sampling, exact: bool) -> Array:
    """`[edges, own]`: log-probabilities for each edge that rounding may have given top_p.

    exact: a token that top_k or top_p surely exclude could not be drawn. Else rounding may have let it in.
    """
    if sampling.temperature == 0:  # a token was certain if it was the likeliest
        behind = logits.float().max(-1).values - logits.float().gather(-1, tokens[:, None])[:, 0]
        return (-behind)[None].double().numpy()
    edges: tuple[float | None, ...] = (sampling.top_p,)
    if sampling.top_p is not None and sampling.top_p < 1:
        edges = tuple(min(1.0, max(1e-9, sampling.top_p + move)) for move in (0.0, -_EDGE, _EDGE))
    rows = torch.stack([sampled_logprobs(logits, tokens, replace(sampling, top_p=edge)) for edge in edges])
    if exact:
        rows[:, _excluded(logits, tokens, sampling)] = float("-inf")
    return rows.double().numpy()


def _excluded(logits: torch.Tensor, tokens: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`[own]` bool: tokens that could not be drawn, however logits and probabilities were rounded."""
    mine, out = logits.gather(-1, tokens[:, None])[:, 0], torch.zeros(len(tokens), dtype=torch.bool)
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        out |= logits.topk(sampling.top_k, -1).values[:, -1] - mine > _SURELY
    if sampling.top_p is not None and sampling.top_p + _SURELY < 1:
        wider = replace(sampling, top_p=sampling.top_p + _SURELY)
        out |= log_distribution(logits, wider).gather(-1, tokens[:, None])[:, 0].isinf()
    return out


def _nearest(recorded: Array, found: Array) -> Array:
    apart = np.abs(found - recorded[None])
    out: Array = np.where(np.isnan(apart), np.inf, apart).min(0)
    return out


def _batches(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """By length, so that little is padded."""
    batch: list[Answer] = []
    for one in sorted(answers, key=lambda one: len(one.ids)):
        if batch and (len(batch) + 1) * len(one.ids) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _shape(net: str) -> tuple[LanguageConfig, str]:
    """The transformer that a row of the table of policies describes, and the dtype that it generates in."""
    try:
        plain = json.loads(net or "null")
        lora, dtype, given = int(plain["lora_rank"]), str(plain["dtype"]), plain["config"]
        if given is None or lora:
            raise UserError("it is computed by transformers, or with adapters: its base model is not here")
        names = {field.name for field in fields(LanguageConfig)}
        whole = {name: value for name, value in given.items() if name in names}
        config = LanguageConfig(**whole)
        sizes = (config.vocab, config.layers, config.hidden, config.intermediate, config.heads, config.kv_heads)
        if not all(type(size) is int and 0 < size < 2**31 for size in (*sizes, config.head_dim)):
            raise ValueError
        if config.heads % config.kv_heads or config.layers > 10_000:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UserError("its row in the table of policies describes no language model") from None
    return config, dtype
