"""The engine around vLLM, against a stand-in for vLLM: no GPU is here, and vLLM runs on nothing else that is.

The stand-in takes the calls and names of vLLM 0.32 (`EngineArgs`, `SamplingParams`, `LLMEngine`) and refuses others.
What it generates comes from `transformers`, of the directory that the engine wrote; so weights that arrive wrongly, or
not, show. What vLLM itself does with a GPU is not shown here.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from selfplay.errors import UserError
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.engine import Request, answers
from selfplay.rollout.sampling import Sampling, log_distribution
from selfplay.rollout.vllm_engine import VllmEngine

torch.set_num_threads(1)
TOKENIZER = of_characters("0123456789+=#")
SPEC = PolicySpec(None, small(TOKENIZER.size, 2, 32, 2, 48), TOKENIZER.files, 48)


class RequestOutputKind(enum.Enum):
    FINAL_ONLY = 2


@dataclass
class EngineArgs:
    model: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    seed: int
    gpu_memory_utilization: float
    enable_prefix_caching: bool
    logprobs_mode: str
    generation_config: str
    disable_log_stats: bool


@dataclass
class SamplingParams:
    temperature: float
    top_k: int
    top_p: float
    max_tokens: int
    stop: list[str] | None
    include_stop_str_in_output: bool
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int
    detokenize: bool
    skip_special_tokens: bool
    output_kind: RequestOutputKind


@dataclass
class LLMEngine:
    args: EngineArgs
    model: Any = None
    waiting: dict[str, tuple[list[int], SamplingParams]] = field(default_factory=dict)
    cached: set[tuple[int, ...]] = field(default_factory=set)

    @classmethod
    def from_engine_args(cls, args: EngineArgs) -> LLMEngine:
        assert args.logprobs_mode == "processed_logprobs" and args.max_model_len == 48
        engine = cls(args)
        engine.collective_rpc("reload_weights", kwargs={"weights_path": args.model})
        torch.manual_seed(args.seed)
        return engine

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        assert method == "reload_weights" and set(kwargs) == {"weights_path"}
        self.model = AutoModelForCausalLM.from_pretrained(kwargs["weights_path"], dtype=torch.float32)

    def reset_prefix_cache(self) -> bool:
        self.cached.clear()
        return True

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams) -> str:
        assert len(prompt["prompt_token_ids"]) + params.max_tokens <= self.args.max_model_len
        self.waiting[request_id] = (prompt["prompt_token_ids"], params)
        return f"{request_id}-12345678"

    def abort_request(self, request_ids: list[str]) -> None:
        for name in request_ids:
            self.waiting.pop(name)

    @torch.inference_mode()
    def step(self) -> list[Any]:
        """One whole answer a step, the newest request first: vLLM keeps no order either."""
        name, (prompt, params) = self.waiting.popitem()
        self.cached.add(tuple(prompt))
        ids, logprobs, reason = list(prompt), [], "length"
        drawn = Sampling(params.temperature, params.top_k or None, params.top_p)
        for _ in range(params.max_tokens):
            logp = log_distribution(self.model(torch.tensor([ids])).logits[0, -1:], drawn)[0]
            raw = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(torch.multinomial(logp.exp(), 1))
            shown = raw if params.temperature == 0 else logp  # vLLM's own way with greedy answers
            logprobs.append({token: SimpleNamespace(logprob=float(shown[token]))})
            ids.append(token)
            text = TOKENIZER.decode(ids[len(prompt) :])
            if token in params.stop_token_ids or any(one in text for one in params.stop or ()):
                reason = "stop"
                break
        one = SimpleNamespace(token_ids=ids[len(prompt) :], logprobs=logprobs, finish_reason=reason)
        return [SimpleNamespace(request_id=name, finished=True, outputs=[one])]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    vllm.__dict__.update(EngineArgs=EngineArgs, LLMEngine=LLMEngine, SamplingParams=SamplingParams)
    sampling.__dict__["RequestOutputKind"] = RequestOutputKind
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)


def requests(sampling: Sampling) -> list[Request]:
    texts = ["1+2=", "12+7=", "5", "99+99=", "0+0="]
    return [Request(10 + i, tuple(TOKENIZER.encode(text)), sampling) for i, text in enumerate(texts)]


@pytest.mark.parametrize("value_head", [False, True])
def test_new_weights_arrive_and_answers_are_those_of_our_engine(stand_in: None, value_head: bool) -> None:
    spec, greedy = replace(SPEC, value_head=value_head), Sampling(0.0, max_tokens=20)
    ours, theirs = ContinuousEngine(fresh(spec, 0)), VllmEngine(spec, rows=4)
    seen = []
    for version in (1, 2):
        tensors = fresh(spec, version).to_arrays()
        for engine in (ours, theirs):
            engine.load(tensors, version)
        assert theirs.version == version and not theirs._engine.cached
        mine = {one.key: one for one in answers(ours, requests(greedy))}
        other = {one.key: one for one in answers(theirs, requests(greedy))}
        assert mine.keys() == other.keys()
        for key, one in mine.items():
            assert np.array_equal(one.token_ids, other[key].token_ids)
            assert one.finish_reason == other[key].finish_reason
            assert np.array_equal(one.logprobs, other[key].logprobs)
        seen.append([one.token_ids.tolist() for _, one in sorted(mine.items())])
    assert seen[0] != seen[1]


@pytest.mark.parametrize("sampling", [Sampling(0.7, max_tokens=30), Sampling(1.2, 5, 0.9, 60, ("#", "+1"))])
def test_logprobs_are_of_the_distribution_that_was_drawn_from(stand_in: None, sampling: Sampling) -> None:
    engine, policy = VllmEngine(SPEC, seed=3), fresh(SPEC, 5)
    engine.load(policy.to_arrays(), 1)
    reference = ContinuousEngine(policy)
    for asked in requests(sampling):
        (one,) = answers(engine, [asked])
        ids = [*asked.prompt, *one.token_ids.tolist()]
        assert len(ids) <= SPEC.context and one.logprobs.dtype == np.float32
        text = TOKENIZER.decode(one.token_ids.tolist())
        ended = ids[-1] in TOKENIZER.eos or any(text.endswith(stop) for stop in sampling.stop)
        assert one.finish_reason == ("stop" if ended else "length")
        with torch.inference_mode():
            hidden = reference.policy.model.hidden(torch.tensor([ids]))
            logp = log_distribution(reference.policy.model.logits(hidden)[0], sampling)
        again = [float(logp[len(asked.prompt) - 1 + i, token]) for i, token in enumerate(one.token_ids.tolist())]
        assert np.allclose(again, one.logprobs, atol=1e-4)


def test_what_is_cancelled_is_never_answered(stand_in: None) -> None:
    engine = VllmEngine(SPEC)
    engine.submit(requests(Sampling(1.0)))
    engine.cancel()
    assert engine.advance() == []
    assert len(list(answers(engine, requests(Sampling(1.0))))) == 5
    with pytest.raises(ValueError, match="a prompt of 48 tokens in a context of 48"):
        engine.submit([Request(0, (3,) * 48, Sampling(1.0))])


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"needs the package vllm: pip install '.*\[factory,vllm\]'"):
        VllmEngine(SPEC)
