"""A language model on the device: tokens a second beside the memory's limit, and whether all its ways agree."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import bandwidth, seconds_of
from report import Report, Skip, Wrong, bounded

from selfplay.nets.inference import has_bfloat16
from selfplay.nets.language.config import LanguageConfig, PolicySpec
from selfplay.nets.language.policy import LanguagePolicy
from selfplay.nets.language.tokenizer import of_characters
from selfplay.nets.language.transformer import Transformer
from selfplay.rollout import Request, Sampling
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.engine import Completion, answers
from selfplay.rollout.sampling import draw
from trainers.reasoning.algorithms.sft import sft_loss
from trainers.reasoning.training_step import adamw, forward

#: About a million, a hundred million and 1.2 billion weights; the last has the shape of Llama 3.2.
SIZES = {
    "1M": LanguageConfig(1024, 4, 128, 352, 4, 2, 32, 512, norm_eps=1e-5),
    "100M": LanguageConfig(32_000, 12, 768, 2048, 12, 4, 64, 1024, norm_eps=1e-5),
    "1B": LanguageConfig(128_256, 16, 2048, 8192, 32, 8, 64, 2048, rope_theta=500_000.0, norm_eps=1e-5),
}
PROMPT = 32
#: Largest difference in nats of a sampled token's log-probability to a forward pass over the whole line.
BOUNDS = {"float32": {"max_nats": 2e-2, "mean_nats": 1e-3}, "bfloat16": {"max_nats": 1.0, "mean_nats": 0.05}}


def main(report: Report, device: str, small: bool) -> None:
    """The check. small: sizes for seconds on a CPU."""
    made = 16 if small else 128
    for size in ("1M",) if small else ("100M", "1B"):
        if size != "1B":
            report.case(f"{size} float32 against the CPU and transformers", agrees, size, device)
        for dtype in ("bfloat16", "float32"):
            name = f"{size} {dtype} log-probs against one forward pass"
            report.case(name, logprobs, size, dtype, device, made)
        report.case(f"{size} one training step, bfloat16 against float32", trains, size, device)
        for batch in (4,) if small else (1, 16, 64, 256, 1024):
            name = f"{size} bfloat16 generation, batch {batch}"
            report.case(name, generation, size, "bfloat16", batch, device, made)


def policy_of(size: str, dtype: str, device: str, seed: int = 0) -> LanguagePolicy:
    """Random weights, made on the device; the same for the same seed on the same device, whatever the dtype."""
    _refuse_missing(dtype, device)
    config = SIZES[size]
    spec = PolicySpec(None, config, dict(of_characters("0123456789").files), config.context, dtype=dtype)
    with torch.device(device):
        model = Transformer(config)
    rng = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0.0, p.shape[1] ** -0.5, generator=rng)
    return LanguagePolicy(spec, model.to(getattr(torch, dtype)), device)


def lines(config: LanguageConfig, rows: int, length: int, device: str) -> torch.Tensor:
    """Random tokens `[rows, length]`."""
    ids = np.random.default_rng(1).integers(2, config.vocab, (rows, length))
    return torch.from_numpy(ids).to(device)


def agrees(size: str, device: str) -> dict[str, Any]:
    """Logits on the device, on the CPU, and of `transformers` on the device, with the same weights."""
    policy, ids = policy_of(size, "float32", device), lines(SIZES[size], 2, 64, device)
    elsewhere = Transformer(SIZES[size])
    elsewhere.load_state_dict(policy.model.state_dict())
    with torch.inference_mode():
        ours = policy.model.logits(policy.model.hidden(ids)).cpu()
        cpu = elsewhere.logits(elsewhere.hidden(ids.cpu()))
    numbers = {"logit_std": float(cpu.std()), "cpu": float((ours - cpu).abs().max())}
    bounds = {"cpu": 5e-3 * numbers["logit_std"]}
    try:
        from transformers import LlamaConfig, LlamaForCausalLM, logging
    except ImportError:
        return bounded(bounds, numbers) | {"transformers": "not installed"}
    logging.set_verbosity_error()
    with torch.device(device):
        theirs = LlamaForCausalLM(LlamaConfig.from_dict(SIZES[size].to_hugging_face(1, 0))).eval()
    theirs.load_state_dict(policy.model.state_dict(), strict=False)
    theirs.tie_weights()
    with torch.inference_mode():
        numbers["transformers"] = float((theirs(input_ids=ids).logits.float().cpu() - ours).abs().max())
    return bounded({**bounds, "transformers": bounds["cpu"]}, numbers)


def generated(policy: LanguagePolicy, batch: int, made: int) -> tuple[list[Completion], torch.Tensor, float]:
    """Answers of `made` tokens to `batch` prompts, the prompts `[batch, PROMPT]`, and the seconds that it took."""
    prompts = lines(policy.spec.config or SIZES["1M"], batch, PROMPT, policy.device)
    engine = ContinuousEngine(policy, batch)
    engine._eos[:] = False
    wanted = [Request(i, tuple(row), Sampling(max_tokens=made)) for i, row in enumerate(prompts.tolist())]
    began = time.perf_counter()
    done = sorted(answers(engine, wanted), key=lambda one: one.key)
    return done, prompts, time.perf_counter() - began


def logprobs(size: str, dtype: str, device: str, made: int) -> dict[str, Any]:
    """What generation says of its tokens, against one forward pass of the same weights, and the learner's."""
    policy = policy_of(size, dtype, device)
    done, prompts, _ = generated(policy, 8, made)
    said = torch.from_numpy(np.stack([one.logprobs for one in done]))
    answered = torch.from_numpy(np.stack([one.token_ids for one in done])).to(device)
    ids = torch.cat([prompts, answered.to(prompts.dtype)], 1)
    mask = torch.zeros(ids.shape, dtype=torch.bool, device=device)
    mask[:, PROMPT:] = True
    batch = {"ids": ids, "mask": mask}

    def apart(by: LanguagePolicy, bf16: bool) -> torch.Tensor:
        with torch.no_grad():
            return (forward(by, batch, Sampling(), bf16)["logprobs"][:, PROMPT:].float().cpu() - said).abs()

    own = apart(policy, False)
    numbers = {"max_nats": float(own.max()), "mean_nats": float(own.mean()), "mean_logprob": float(said.mean())}
    if dtype == "bfloat16":  # the learner: float32 weights, products in bfloat16
        del policy
        numbers["learner_max_nats"] = float(apart(policy_of(size, "float32", device), True).max())
    return bounded(BOUNDS[dtype], numbers)


def generation(size: str, dtype: str, batch: int, device: str, made: int) -> dict[str, Any]:
    """Tokens a second, and milliseconds of a step: of the engine, of its parts, and what the memory allows.

    bound_ms: all weights and the keys and values of all rows, read once, at the speed of a copy. model_ms: the model's
    step alone; graph_ms: the same as a CUDA graph, which the engine does not use; draw_ms: the choice of tokens.
    """
    policy = policy_of(size, dtype, device)
    generated(policy, min(batch, 4), 4)
    done, _, spent = generated(policy, batch, made)
    tokens = sum(len(one.token_ids) for one in done)
    if tokens != batch * made:
        raise Wrong("an answer has another length than was wanted", tokens=tokens)
    config = SIZES[size]
    width = 2 if dtype == "bfloat16" else 4
    length = PROMPT + made
    kept = batch * (PROMPT + made / 2) * config.layers * 2 * config.kv_heads * config.head_dim
    bound = (config.parameters + kept) * width / bandwidth(device)
    numbers: dict[str, Any] = {"tokens_per_s": tokens / spent, "of_bound": bound * made / spent}
    numbers |= {"step_ms": spent / made * 1e3, "bound_ms": bound * 1e3}
    with torch.inference_mode():
        step = _step(policy, batch, length)
        numbers["model_ms"] = seconds_of(step, device, 0.3) * 1e3
        logits, rng = step().float(), torch.Generator(device).manual_seed(0)
        numbers["draw_ms"] = seconds_of(lambda: draw(logits, Sampling(), rng), device, 0.2) * 1e3
        if device == "cuda":
            try:
                numbers["graph_ms"] = seconds_of(_graph(step), device, 0.3) * 1e3
            except RuntimeError as error:
                numbers["graph"] = f"cannot be recorded: {str(error)[:100]}"
    return numbers


def _step(policy: LanguagePolicy, batch: int, length: int) -> Callable[[], torch.Tensor]:
    """One step of the model half way through the answers, again and again."""
    model, at = policy.model, (PROMPT + length) // 2
    cache = model.cache(batch, length)
    ids = torch.full((batch,), 2, device=policy.device)
    places = torch.full((batch,), at, device=policy.device)
    return lambda: model.logits(model.step(ids, places, cache, at + 1))


def _graph(step: Callable[[], torch.Tensor]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def trains(size: str, device: str) -> dict[str, Any]:
    """Loss and gradient of one step of imitation in bfloat16 against float32, and the step itself."""
    policy = policy_of(size, "float32", device)
    ids = lines(SIZES[size], 4, 128, device)
    mask = torch.ones(ids.shape, dtype=torch.bool, device=device)
    mask[:, :PROMPT] = False
    numbers: dict[str, Any] = {}
    gradients: list[list[torch.Tensor]] = []
    for bf16 in (False, True):
        if bf16:
            _refuse_missing("bfloat16", device)
        policy.zero_grad(set_to_none=True)
        loss, _ = sft_loss(forward(policy, {"ids": ids, "mask": mask}, Sampling(), bf16)["logprobs"], mask)
        loss.backward()
        gradients.append([p.grad.clone() for _, p in policy.trained() if p.grad is not None])
        numbers["bf16_loss" if bf16 else "loss"] = float(loss)
    products = [sum(float((a * b).sum()) for a, b in zip(*pair, strict=True)) for pair in (
        gradients, (gradients[0], gradients[0]), (gradients[1], gradients[1]))]  # fmt: skip
    numbers["angle"] = 1 - products[0] / (products[1] * products[2]) ** 0.5
    numbers["loss_apart"] = abs(numbers["bf16_loss"] - numbers["loss"]) / numbers["loss"]
    del gradients
    optimizer = adamw(policy.parameters(), 0.01)
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-5  # so little that the loss must fall
    optimizer.step()
    finite = all(bool(torch.isfinite(p).all()) for p in policy.parameters())
    with torch.no_grad():
        after, _ = sft_loss(forward(policy, {"ids": ids, "mask": mask}, Sampling(), False)["logprobs"], mask)
    numbers["loss_after"] = float(after)
    if not finite or not numbers["loss_after"] < numbers["loss"]:
        raise Wrong("the step made the loss no smaller, or weights that are not finite", **numbers)
    return bounded({"angle": 0.02, "loss_apart": 0.01}, numbers)


def _refuse_missing(dtype: str, device: str) -> None:
    if dtype == "bfloat16" and device == "cuda" and not has_bfloat16(device):
        raise Skip("the device does not multiply in bfloat16")


