"""The clipped policy-gradient loss of PPO, GRPO, Dr. GRPO and DAPO over sampled tokens, and what it is divided by.

Plain torch. One term a trained token; a line `[b]` is what one seat wrote in one episode, and whatever that seat did
not sample (prompt, tool text, other seats, padding) is outside the mask and gets a gradient of exactly 0.

A batch is worked through in micro-batches whose gradients add up, so each loss here is a sum divided by a `Size`: pass
`size_of` the whole batch, and the sum of the micro-batches' losses is the loss of the batch. With N learners whose
gradients are averaged, pass the `Size` of the union divided by N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Average = Literal["token", "sequence", "constant"]
Report = dict[str, Tensor]

#: Differences of log-probs are held within this (nats): exp stays finite in float32; beyond it there is no gradient.
FARTHEST = 20.0


@dataclass(frozen=True)
class PolicyLoss:
    """What is minimised. The defaults are DAPO's (arXiv:2503.14476 §3.1, §3.3) with truncated importance sampling.

    clip_low, clip_high: the ratio new / proximal is clipped to [1 - clip_low, 1 + clip_high]: PPO (arXiv:1707.06347
      eq. 7) with 0.2 and 0.2, DAPO's clip-higher with 0.2 and 0.28; at least 0, clip_low at most 1.
    average: "token": every trained token counts alike (DAPO eq. 8); "sequence": the mean over lines of the mean over
      their tokens (GRPO, arXiv:2402.03300 eq. 3); "constant": the mean over lines of the sum over their tokens divided
      by `constant` (Dr. GRPO, arXiv:2503.20783 §3.2): a token of a long line pulls as much as one of a short line.
    constant: tokens, the same for the whole run, such as the token limit; only, and always, with average = "constant".
    importance_cap: a token weighs min(proximal / behaviour, importance_cap), the truncated importance weight (V-trace's
      rho, arXiv:1802.01561 §4.1), which corrects for samplers that lag behind or compute otherwise than the learner,
      while the ratio is to the proximal policy (arXiv:2110.00641); positive. None: no correction, all weigh 1.
    kl_coef: times KL to the reference policy, at least 0.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    average: Average = "token"
    constant: int | None = None
    importance_cap: float | None = 2.0
    kl_coef: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.clip_low, self.clip_high
        if not (0 <= low <= 1 and high >= 0):
            raise ValueError(f"clip_low must be in [0, 1] and clip_high at least 0, got {low} and {high}")
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise ValueError(f"importance_cap must be positive or None, got {self.importance_cap}")
        if not self.kl_coef >= 0:
            raise ValueError(f"kl_coef must be at least 0, got {self.kl_coef}")
        check_average(self.average, self.constant)


@dataclass(frozen=True)
class Size:
    """What sums over a whole batch are divided by; sizes of shards add up.

    tokens: the trained tokens, each counted as often as its line weighs.
    sequences: the lines with a trained token, likewise. A line of weight 0 (filtered, unverifiable) is in neither, so
      what is filtered does not dilute the rest; who wants a fixed denominator makes the `Size` himself.
    """

    tokens: float
    sequences: float

    def __add__(self, other: Size) -> Size:
        return Size(self.tokens + other.tokens, self.sequences + other.sequences)


def size_of(mask: Tensor, weight: Tensor | None = None) -> Size:
    """The `Size` of a batch. mask: `[B, T]` bool, the tokens to train. weight: `[B]`, at least 0; None: all 1."""
    tokens = mask.sum(1).double()
    by_line = torch.ones_like(tokens) if weight is None else weight.double()
    return Size(float((by_line * tokens).sum()), float((by_line * (tokens > 0)).sum()))


def check_average(average: Average, constant: int | None) -> None:
    """Raises ValueError unless `constant` is there exactly where it is used."""
    if average not in get_args(Average):
        raise ValueError(f"average must be one of {', '.join(get_args(Average))}, got {average!r}")
    if average == "constant" and (constant is None or constant < 1):
        raise ValueError(f"average = 'constant' needs constant, a number of tokens of at least 1, got {constant}")
    if average != "constant" and constant is not None:
        raise ValueError(f"constant = {constant} has no meaning with average = {average!r}: leave it out")


def trained(mask: Tensor, weight: Tensor | None) -> Tensor:
    """`[B, T]` bool: the tokens of the mask on lines that weigh something."""
    return mask if weight is None else mask & (weight > 0)[:, None]


def token_weights(
    mask: Tensor, weight: Tensor | None, average: Average, constant: int | None, size: Size, dtype: torch.dtype
) -> Tensor:
    """`[B, T]`: what each token's term is multiplied by before all are summed; 0 outside the mask.

    Over a whole batch of at least one token the entries sum to 1 for "token" and "sequence".
    """
    by_line = torch.ones(len(mask), dtype=dtype, device=mask.device) if weight is None else weight.to(dtype)
    if average == "token":
        by_line = by_line / (size.tokens or 1.0)
    elif average == "sequence":
        by_line = by_line / mask.sum(1).clamp_min(1) / (size.sequences or 1.0)
    else:
        assert constant is not None
        by_line = by_line / constant / (size.sequences or 1.0)
    return by_line[:, None] * mask


def difference(first: Tensor, second: Tensor, among: Tensor) -> Tensor:
    """`[B, T]`: first - second in nats, within ±`FARTHEST`, and 0, whatever stands there, outside `among`."""
    return (first - second).masked_fill(~among, 0.0).clamp(-FARTHEST, FARTHEST)


def k3(of: Tensor, other: Tensor, among: Tensor) -> Tensor:
    """`[B, T]` nats, at least 0: other / of - 1 - log(other / of), of log-probs `of` and `other` of sampled tokens.

    Its expectation over samples of `of` is KL(of || other) (GRPO, arXiv:2402.03300 eq. 4). Its derivative with respect
    to `of` is 1 - other / of, the expectation of which is the gradient of KL(other || of), the other way round: it
    pulls `of` towards covering `other`, and vanishes where they agree.
    """
    apart = difference(other, of, among)
    return torch.expm1(apart) - apart


def policy_loss(
    new: Tensor,
    proximal: Tensor,
    behaviour: Tensor,
    advantages: Tensor,
    mask: Tensor,
    settings: PolicyLoss,
    reference: Tensor | None = None,
    weight: Tensor | None = None,
    size: Size | None = None,
) -> tuple[Tensor, Report]:
    """The loss to minimise, a scalar, and what to report of it.

    Log-probs are `[B, T]` float32, in nats, entry t that of token t given those before it, anything outside the mask:
      new: by the net that is trained, with gradient. proximal: by the learner's net when the batch arrived. behaviour:
      as the actor sampled the token, temperature and truncation applied. reference: by the policy to stay near to.
    advantages: `[B]` or `[B, T]`, reward units, from the point of view of the seat that wrote the tokens; constants.
    mask: `[B, T]` bool, the tokens to train. weight: `[B]`, at least 0; None: all 1; 0: as if the line were not there.
    size: of the whole batch this is a part of; None: of this batch, alone.

    A token's term: -min(proximal / behaviour, cap) * min(ratio * A, clip(ratio) * A) + kl_coef * `k3`(new, reference).

    Reported, detached, scalar, over trained tokens by weight, so that micro-batches with the `size` of the whole add up
    to the whole (`merged`): `loss`; the means `clip_share` (tokens whose advantage has no gradient because of the
    clip), `ratio` (new / proximal), `importance` (the weights used), `mismatch` (nats: `k3` estimate of KL(behaviour ||
    proximal)) and, with a reference, `kl` (nats); but `ratio_max` is a maximum (0 where nothing is trained).
    """
    for name, tensor in (("new", new), ("proximal", proximal), ("behaviour", behaviour), ("reference", reference)):
        if tensor is not None and tensor.shape != mask.shape:
            raise ValueError(f"{name} must have the shape of the mask, {tuple(mask.shape)}, got {tuple(tensor.shape)}")
    if reference is None and settings.kl_coef:
        raise ValueError(f"kl_coef = {settings.kl_coef} needs the reference's log-probs")
    size = size_of(mask, weight) if size is None else size
    mask = trained(mask, weight)
    proximal, behaviour, advantages = proximal.detach(), behaviour.detach(), advantages.detach().to(new.dtype)
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    advantages = advantages.expand(mask.shape).masked_fill(~mask, 0.0)

    ratio = difference(new, proximal, mask).exp()
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    importance = torch.ones_like(ratio)
    if settings.importance_cap is not None:
        importance = difference(proximal, behaviour, mask).exp().clamp_max(settings.importance_cap)
    terms = -importance * torch.minimum(ratio * advantages, clipped * advantages)
    kl = None if reference is None else k3(new, reference.detach(), mask)
    if kl is not None and settings.kl_coef:
        terms = terms + settings.kl_coef * kl
    loss = (token_weights(mask, weight, settings.average, settings.constant, size, new.dtype) * terms).sum()

    with torch.no_grad():
        share = token_weights(mask, weight, "token", None, size, new.dtype)
        bound = clipped * advantages < ratio * advantages
        report = {
            "loss": loss.detach(),
            "clip_share": (share * bound).sum(),
            "ratio": (share * ratio).sum(),
            "importance": (share * importance).sum(),
            "mismatch": (share * k3(behaviour, proximal, mask)).sum(),
            "ratio_max": ratio.masked_fill(~mask, 0.0).amax() if mask.numel() else ratio.sum(),
        }
        if kl is not None:
            report["kl"] = (share * kl).sum()
    return loss, report


def merged(reports: Sequence[Report]) -> Report:
    """The report of a batch out of those of its micro-batches, each made with the `Size` of the whole."""
    names = reports[0].keys()
    return {
        name: torch.stack([report[name] for report in reports]).amax(0)
        if name.endswith("_max")
        else torch.stack([report[name] for report in reports]).sum(0)
        for name in names
    }
