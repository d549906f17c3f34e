"""Generation by vLLM on a GPU, behind the same interface: for models of a billion parameters, with paged attention.

vLLM has its own copy of the model, in a process of its own. New weights are written to memory as a Hugging Face
directory, which vLLM loads into the model that it has; its prefix cache is emptied, as it holds keys of old weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.nets.language.config import PolicySpec
from selfplay.nets.language.policy import fresh, save
from selfplay.rollout.engine import Array, Completion, Request
from selfplay.rollout.sampling import Sampling

#: Where a directory of weights costs no disk.
_MEMORY = Path("/dev/shm")


class VllmEngine:
    """Generates with vLLM. rows: most answers under way at once. memory: share of the GPU's that vLLM takes."""

    def __init__(self, spec: PolicySpec, rows: int = 256, seed: int = 0, memory: float = 0.5) -> None:
        """Raises `UserError` where vLLM is not installed or finds no GPU that it can use."""
        try:
            from vllm import EngineArgs, LLMEngine
        except ImportError:
            wanted = how_to_install("factory", "vllm")
            raise UserError(f"generation.engine = vllm needs the package vllm: {wanted}") from None
        self.version = 0
        self.tokenizer = (policy := fresh(replace(spec, value_head=False), 0, "cpu")).tokenizer
        self._policy, self._under_way, self._next = policy, dict[str, Request](), 0
        self._folder = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
        save(policy, self._folder.name)
        try:
            self._engine = LLMEngine.from_engine_args(
                EngineArgs(
                    model=self._folder.name,
                    dtype=spec.dtype,
                    max_model_len=spec.context,
                    max_num_seqs=rows,
                    seed=seed,
                    gpu_memory_utilization=memory,
                    enable_prefix_caching=True,
                    logprobs_mode="processed_logprobs",  # of the distribution that is drawn from
                    generation_config="vllm",  # nothing that the directory says about sampling
                    disable_log_stats=True,
                )
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"vLLM cannot serve this policy here: {str(error)[:300]}") from None

    def load(self, tensors: dict[str, Array], version: int) -> None:
        """As `Engine.load`."""
        assert not self._under_way
        own = {name: value for name, value in tensors.items() if not name.startswith("value_head.")}
        self._policy.from_arrays(own)
        save(self._policy, self._folder.name)
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": self._folder.name})
        self._engine.reset_prefix_cache()
        self.version = version

    def submit(self, requests: Sequence[Request]) -> None:
        """As `Engine.submit`. Raises `ValueError` for a prompt that is empty or fills the context."""
        context = self._policy.spec.context
        for request in requests:
            room = context - len(request.prompt)
            if room < 1 or not request.prompt:
                raise ValueError(f"a prompt of {len(request.prompt)} tokens in a context of {context}")
            name = str(self._next)
            self._next += 1
            self._under_way[name] = request
            prompt = {"prompt_token_ids": list(request.prompt)}
            self._engine.add_request(name, prompt, self._params(request.sampling, room))

    def _params(self, sampling: Sampling, room: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=sampling.top_p or 1.0,
            max_tokens=min(sampling.max_tokens, room),
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=True,
            stop_token_ids=list(self.tokenizer.eos),
            ignore_eos=True,  # the ends are the tokenizer's, above
            logprobs=0,  # of the token that was drawn alone
            detokenize=bool(sampling.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def advance(self) -> list[Completion]:
        """As `Engine.advance`."""
        finished: list[Completion] = []
        while self._under_way and not finished:
            finished = [self._completion(one) for one in self._engine.step() if one.finished]
        return finished

    def _completion(self, output: Any) -> Completion:
        request, one = self._under_way.pop(output.request_id), output.outputs[0]
        ids = np.array(list(one.token_ids), np.int32)
        if one.finish_reason not in ("stop", "length"):
            return Completion(request.key, ids, None, "error", error=f"vLLM ended an answer: {one.finish_reason}")
        logprobs = np.zeros(len(ids), np.float32)  # of a greedy answer: each token was certain
        if request.sampling.temperature > 0:
            logprobs[:] = [at[token].logprob for token, at in zip(ids.tolist(), one.logprobs, strict=True)]
        return Completion(request.key, ids, logprobs, one.finish_reason)

    def cancel(self) -> None:
        """As `Engine.cancel`."""
        if self._under_way:
            self._engine.abort_request(list(self._under_way))
            self._under_way.clear()
