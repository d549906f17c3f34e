"""Continuous batching: what is sampled has the recorded probability, and neighbours in the batch change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from selfplay.nets.language import LanguageConfig, LanguagePolicy, fresh, load, save  # noqa: E402
from selfplay.nets.language.config import small  # noqa: E402
from selfplay.nets.language.policy import PolicySpec  # noqa: E402
from selfplay.nets.language.tokenizer import Tokenizer, of_characters  # noqa: E402
from selfplay.nets.language.transformer import Cache  # noqa: E402
from selfplay.rollout import Completion, Request, Sampling, sampled_logprobs  # noqa: E402
from selfplay.rollout.continuous import ContinuousEngine  # noqa: E402
from selfplay.rollout.engine import answers  # noqa: E402
from selfplay.rollout.sampling import draw, log_distribution  # noqa: E402

torch.set_num_threads(1)
TOKENIZER = of_characters("0123456789+*=#;,.abcdefghij")
VOCAB = TOKENIZER.size
KINDS = {
    "temperature": Sampling(temperature=0.7, max_tokens=20),
    "hot": Sampling(temperature=1.6, max_tokens=20),
    "top_k": Sampling(top_k=4, max_tokens=20),
    "top_p": Sampling(top_p=0.6, max_tokens=20),
    "all": Sampling(temperature=0.8, top_k=9, top_p=0.8, max_tokens=20),
    "greedy": Sampling(temperature=0, max_tokens=20),
}


def policy_of(config: LanguageConfig, tokenizer: Tokenizer = TOKENIZER, dtype: str = "float32") -> LanguagePolicy:
    """With logits far enough apart that which token is likely depends on what came before."""
    spec = PolicySpec(None, config, dict(tokenizer.files), config.context, dtype=dtype)
    policy = fresh(spec, seed=2)
    with torch.no_grad():
        weight = policy.model.model.embed_tokens.weight
        weight.mul_(0.3 / weight.std())
    return policy


@cache
def native() -> LanguagePolicy:
    return policy_of(replace(small(VOCAB, 2, 32, 4, 64), kv_heads=2))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LanguagePolicy:
    """The same weights as `native`, computed by `transformers`."""
    folder = tmp_path_factory.mktemp("model")
    save(native(), str(folder))
    return fresh(replace(load(str(folder)), config=None), seed=0)


def requests_of(n: int, sampling: Sampling, seed: int = 0, longest: int = 30) -> list[Request]:
    """Prompts of many lengths, some of them shared, and answers of many limits."""
    rng = np.random.default_rng(seed)
    prompts = [tuple(rng.integers(2, VOCAB, rng.integers(1, longest)).tolist()) for _ in range(max(1, 2 * n // 3))]
    limits = rng.integers(1, 40, n)
    chosen = [prompts[i % len(prompts)] for i in range(n)]
    return [Request(i, chosen[i], replace(sampling, max_tokens=int(limits[i]))) for i in range(n)]


def all_answers(engine: ContinuousEngine, requests: Sequence[Request]) -> dict[int, Completion]:
    found = list(answers(engine, requests))
    assert len(found) == len({one.key for one in found}) == len(requests)
    return {one.key: one for one in found}


def recomputed(policy: LanguagePolicy, request: Request, completion: Completion) -> np.ndarray[Any, Any]:
    """Log-probabilities of an answer, alone and in one pass."""
    ids = torch.tensor([[*request.prompt, *completion.token_ids.tolist()]])
    with torch.no_grad():
        logits = policy.model.logits(policy.model.hidden(ids[:, :-1]))[0, len(request.prompt) - 1 :]
        out: np.ndarray[Any, Any] = sampled_logprobs(logits, ids[0, len(request.prompt) :], request.sampling).numpy()
    return out


def right_form(policy: LanguagePolicy, request: Request, completion: Completion) -> None:
    """It ends by its end token, or at its limit, and has no end token before."""
    ids, eos = completion.token_ids, policy.tokenizer.eos[0]
    room = min(request.sampling.max_tokens, policy.spec.context - len(request.prompt))
    assert ids.dtype == np.int32 and completion.logprobs is not None and completion.logprobs.dtype == np.float32
    assert eos not in ids[:-1] and 1 <= len(ids) <= room and len(completion.logprobs) == len(ids)
    assert completion.finish_reason == ("stop" if ids[-1] == eos else "length")
    assert completion.finish_reason == "stop" or len(ids) == room


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("rows", [5, 64])
def test_recorded_log_probabilities_are_those_of_what_was_sampled(name: str, rows: int) -> None:
    engine = ContinuousEngine(native(), rows=rows, seed=1)
    requests = requests_of(48, KINDS[name])
    found = all_answers(engine, requests)
    for request in requests:
        right_form(native(), request, found[request.key])
        assert np.abs(found[request.key].logprobs - recomputed(native(), request, found[request.key])).max() < 1e-4
    assert engine.tokens == sum(len(one.token_ids) for one in found.values())
    assert name != "hot" or {one.finish_reason for one in found.values()} == {"stop", "length"}


@pytest.mark.parametrize("name", ["all", "greedy"])
def test_models_of_transformers_generate_the_same_way(name: str, other: LanguagePolicy) -> None:
    requests = requests_of(24, KINDS[name])
    found = all_answers(ContinuousEngine(other, rows=5, seed=1), requests)
    ours = all_answers(ContinuousEngine(native(), rows=5, seed=1), requests)
    for request in requests:
        one = found[request.key]
        assert np.abs(one.logprobs - recomputed(other, request, one)).max() < 1e-4
        assert one.token_ids.tolist() == ours[request.key].token_ids.tolist()


def test_neighbours_rows_and_order_do_not_matter() -> None:
    requests = requests_of(40, KINDS["greedy"])
    alone = ContinuousEngine(native(), rows=1)
    wanted = {r.key: next(iter(answers(alone, [r]))).token_ids.tolist() for r in requests}
    assert len({tuple(ids) for ids in wanted.values()}) > 20
    rng = np.random.default_rng(0)
    for rows in (2, 7, 16, 100):
        engine = ContinuousEngine(native(), rows=rows)
        for _ in range(2):  # what an engine did before does not matter either
            order = [requests[i] for i in rng.permutation(len(requests))]
            assert {key: one.token_ids.tolist() for key, one in all_answers(engine, order).items()} == wanted


def test_requests_may_come_at_any_time() -> None:
    """Answers are continued as soon as they are there, as dialogues do; the cache grows while others are under way."""
    engine, prompts, keys = ContinuousEngine(native(), rows=6, seed=3), {}, iter(range(1000))

    def ask(prompt: tuple[int, ...], limit: int) -> None:
        key = next(keys)
        prompts[key] = Request(key, prompt, replace(KINDS["all"], max_tokens=limit))
        engine.submit([prompts[key]])

    for start in range(4):
        ask((start + 2, 3), 3 + start)
    lengths, turns = [], 0
    while done := engine.advance():
        lengths.append(engine._length)
        for one in done:
            request = prompts[one.key]
            assert np.abs(one.logprobs - recomputed(native(), request, one)).max() < 1e-4
            turns += 1
            longer = (*request.prompt, *one.token_ids.tolist(), 5, 6)
            if len(longer) < 60:
                ask(longer, 9)
    assert turns > 12 and lengths == sorted(lengths) and lengths[-1] > lengths[0] and engine.advance() == []


def test_a_long_answer_beside_short_ones_keeps_its_cache() -> None:
    engine = ContinuousEngine(native(), rows=3)
    long = Request(0, (5, 6, 7), replace(KINDS["greedy"], max_tokens=30))
    wanted = next(iter(answers(ContinuousEngine(native(), rows=1), [long]))).token_ids.tolist()
    short = [Request(i, (9,) * (3 * i), replace(KINDS["greedy"], max_tokens=2)) for i in range(1, 18)]
    assert all_answers(engine, [*short[:4], long, *short[4:]])[0].token_ids.tolist() == wanted


def test_what_is_cancelled_never_comes_and_leaves_nothing() -> None:
    engine, requests = ContinuousEngine(native(), rows=4), requests_of(12, KINDS["greedy"])
    wanted = {key: one.token_ids.tolist() for key, one in all_answers(engine, requests).items()}
    engine.submit(requests)
    engine.advance()
    engine.cancel()
    assert engine.advance() == []
    engine.load(native().to_arrays(), 7)
    assert engine.version == 7
    assert {key: one.token_ids.tolist() for key, one in all_answers(engine, requests).items()} == wanted


def test_what_cannot_be_answered_is_refused() -> None:
    engine = ContinuousEngine(native(), rows=4)
    for prompt in ((), (2,) * 64, (2,) * 90):
        with pytest.raises(ValueError, match="a prompt of .* tokens in a context of 64"):
            engine.submit([Request(0, (2,), Sampling()), Request(1, prompt, Sampling())])
    assert engine.advance() == [], "nothing of a refused batch is begun"
    engine.submit([Request(0, (2,), Sampling())])
    with pytest.raises(ValueError, match="must be sampled alike"):
        engine.submit([Request(1, (2,), Sampling(temperature=0.5))])
    (one,) = all_answers(engine, [Request(1, (2,) * 63, Sampling())]).values() if engine.advance() else ()
    assert len(one.token_ids) == 1


def test_frequencies_are_the_distribution() -> None:
    """Chi-square of the first two tokens of 6,000 answers, and of `draw`; the seeds are fixed."""
    for seed, name in enumerate(("temperature", "all")):
        sampling, n = replace(KINDS[name], max_tokens=2), 6000
        request = Request(0, (7, 3, 9), sampling)
        engine = ContinuousEngine(native(), rows=500, seed=seed)
        found = [one.token_ids for one in answers(engine, [replace(request, key=i) for i in range(n)])]
        first = np.bincount([ids[0] for ids in found], minlength=VOCAB)
        follows = int(first[2:].argmax()) + 2
        second = np.bincount([ids[1] for ids in found if ids[0] == follows], minlength=VOCAB)
        for ids, counts in (((7, 3, 9), first), ((7, 3, 9, follows), second)):
            with torch.no_grad():
                logits = native().model.logits(native().model.hidden(torch.tensor([ids]))[:, -1])
            p = log_distribution(logits, sampling)[0].exp().numpy()
            assert not counts[p == 0].any() and counts.sum() > 500
            expected = p * counts.sum()
            likely = expected >= 5
            seen, due = counts[likely], expected[likely]
            if (~likely & (p > 0)).any():
                seen, due = np.append(seen, counts[~likely].sum()), np.append(due, expected[~likely].sum())
            free = len(seen) - 1
            assert ((seen - due) ** 2 / np.maximum(due, 1e-9)).sum() < free + 4 * (2 * free) ** 0.5 + 4


def test_temperature_top_k_and_top_p_by_hand() -> None:
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    for sampling, wanted in (
        (Sampling(), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.1), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.8), [4 / 9, 3 / 9, 2 / 9, 0]),
        (Sampling(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ):
        assert torch.allclose(log_distribution(p.log(), sampling).exp(), torch.tensor([wanted]).float(), atol=1e-6)
    tokens, logprobs = draw(p.log().repeat(9, 1), Sampling(temperature=0), torch.Generator())
    assert tokens.tolist() == [0] * 9 and logprobs.tolist() == [0] * 9


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"max_tokens": 0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_a_distribution_that_is_none_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Sampling(**bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_a_step_attends_as_torch_does_whoever_shares_the_keys(dtype: torch.dtype, kv_heads: int) -> None:
    config = replace(small(VOCAB, 1, 48, 6, 64), kv_heads=kv_heads)
    kept, rng = Cache(config, 3, 12, dtype, "cpu"), torch.Generator().manual_seed(0)
    k, v = (torch.randn(3, kv_heads, 9, 8, generator=rng).to(dtype) for _ in range(2))
    kept.fill(0, torch.arange(3), k, v)
    q = torch.randn(3, 6, 1, 8, generator=rng).to(dtype)
    there = torch.arange(9) <= torch.tensor([8, 3, 0])[:, None]
    bias = torch.zeros(3, 9).masked_fill(~there, float("-inf"))[:, None, None]
    told = kept.attend(0, q, bias.to(dtype)).float()
    true = torch.nn.functional.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=bias, enable_gqa=True
    )
    assert torch.allclose(told, true, atol=1e-5 if dtype == torch.float32 else 2e-2)


def test_bfloat16_is_within_a_tenth_of_a_nat_and_near_on_average() -> None:
    """A row's recorded log-probabilities against one pass over it, both in bfloat16."""
    policy = policy_of(native().spec.config, dtype="bfloat16")  # type: ignore[arg-type]
    requests = requests_of(40, Sampling())
    found = all_answers(ContinuousEngine(policy, rows=7, seed=1), requests)
    off = np.concatenate([np.abs(found[r.key].logprobs - recomputed(policy, r, found[r.key])) for r in requests])
    assert off.max() < 0.1 and off.mean() < 0.01


def test_answers_stop_at_texts_in_a_batch() -> None:
    sampling = Sampling(temperature=1.2, max_tokens=40, stop=("#", "=1"))
    requests = [replace(r, sampling=sampling) for r in requests_of(40, sampling)]
    found = all_answers(ContinuousEngine(native(), rows=6, seed=4), requests)
    texts = [TOKENIZER.decode(one.token_ids.tolist()) for one in found.values()]
    assert sum(text.endswith(("#", "=1")) for text in texts) > 10
    assert not any("#" in text[:-1] or "=1" in text[:-2] for text in texts)
    for request in requests:
        assert np.abs(found[request.key].logprobs - recomputed(native(), request, found[request.key])).max() < 1e-4
