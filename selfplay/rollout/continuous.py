"""Continuous batching: finished rows leave the batch and waiting ones enter it, at any token.

All rows share one cache of keys and values. A prompt that many samples share is computed once. Rows that are free are
filled when there are enough of them, because each filling costs a pass over prompts; when nothing waits any more, the
batch shrinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from selfplay.nets.language import LanguagePolicy
from selfplay.rollout.engine import Array, Completion, Request
from selfplay.rollout.sampling import Sampling, draw

#: Free rows, as a share of all, that are worth a pass over prompts.
_REFILL = 1 / 16
#: Tokens of prompts in one pass.
_PREFILL_TOKENS = 16_384
_GROW = 64


class ContinuousEngine:
    """Generates with a policy in this process, on CPU or GPU. rows: most answers under way at once."""

    def __init__(self, policy: LanguagePolicy, rows: int = 256, seed: int = 0) -> None:
        self.policy = policy.eval()
        self.version = 0
        self.tokens = self.steps = 0
        self._tokenizer = policy.tokenizer
        self._device = policy.device
        self._rng = torch.Generator(self._device).manual_seed(seed)
        self._rows = rows
        self._length = 0
        self._cache: Any = None
        self._waiting: deque[Request] = deque()
        self._requests: list[Request | None] = [None] * rows
        self._busy = np.zeros(rows, bool)
        self._used = 0  # the first rows, that a step computes; those of them that are not busy wait to be filled
        self._last = np.zeros(rows, np.int64)
        self._at = np.zeros(rows, np.int64)
        self._made = np.zeros(rows, np.int64)
        self._limit = np.zeros(rows, np.int64)
        self._ids = np.zeros((rows, _GROW), np.int32)
        self._logprobs = np.zeros((rows, _GROW), np.float32)
        self._sampling: Sampling | None = None
        self._eos = np.zeros(policy.model.vocab, bool)  # a model may have more tokens than its tokenizer
        self._eos[list(policy.tokenizer.eos)] = True
        self._may_stop: Array | None = None
        self._stops_known: tuple[str, ...] = ()

    def load(self, tensors: dict[str, Array], version: int) -> None:
        """As `Engine.load`."""
        assert not self._used and not self._waiting
        self.policy.from_arrays(tensors)
        self.version = version

    def submit(self, requests: Sequence[Request]) -> None:
        """As `Engine.submit`. All requests under way must have the same `Sampling`, but for max_tokens.

        Raises `ValueError` where they have not, and for a prompt that is empty or fills the context.
        """
        if not requests:
            return
        drawn = self._sampling if self._used or self._waiting else None
        for request in requests:
            room = self.policy.spec.context - len(request.prompt)
            if room < 1 or not request.prompt:
                raise ValueError(f"a prompt of {len(request.prompt)} tokens in a context of {self.policy.spec.context}")
            one = replace(request.sampling, max_tokens=1)
            drawn = one if drawn is None else drawn
            if one != drawn:
                raise ValueError("all requests under way must be sampled alike")
        assert drawn is not None
        self._prepare(drawn)
        self._waiting.extend(requests)

    def cancel(self) -> None:
        """As `Engine.cancel`."""
        self._waiting.clear()
        self._requests = [None] * self._rows
        self._busy[:] = False
        self._used = 0
        self._at[:] = self._made[:] = self._last[:] = 0

    @torch.inference_mode()
    def advance(self) -> list[Completion]:
        """As `Engine.advance`."""
        finished: list[Completion] = []
        while not finished and (self._used or self._waiting):
            finished = self._admit()
            if not finished and self._used:
                finished = self._step()
        return finished

    def _prepare(self, sampling: Sampling) -> None:
        self._sampling = sampling
        if sampling.stop == self._stops_known:
            return
        self._stops_known, self._may_stop = sampling.stop, None
        if sampling.stop:
            ends = {*(text[-1] for text in sampling.stop), "\ufffd"}
            # Twice, as many tokenizers leave out the space that a text begins with.
            texts = self._tokenizer.decode_all([[i, i] for i in range(self._tokenizer.size)])
            self._may_stop = np.zeros(len(self._eos), bool)
            self._may_stop[: len(texts)] = [not ends.isdisjoint(text) for text in texts]

    # -- rows enter ---------------------------------------------------------------------------------------------

    def _admit(self) -> list[Completion]:
        """Fills free rows from those that wait; some may be finished by their first token."""
        free = np.flatnonzero(~self._busy)
        room = len(free)
        if not self._waiting or (self._used and room < max(1, int(self._rows * _REFILL))):
            return []
        taken: list[Request] = []
        prompts: dict[tuple[int, ...], int] = {}
        longest = 0
        while self._waiting and len(taken) < room:
            request = self._waiting[0]
            longest = max(longest, len(request.prompt))
            if taken and (len(prompts) + (request.prompt not in prompts)) * longest > _PREFILL_TOKENS:
                break
            prompts.setdefault(request.prompt, len(prompts))
            taken.append(self._waiting.popleft())
        rows = free[: len(taken)]
        for row, request in zip(rows.tolist(), taken, strict=True):
            size = len(request.prompt)
            self._requests[row] = request
            self._at[row], self._made[row] = size - 1, 0
            self._limit[row] = min(request.sampling.max_tokens, self.policy.spec.context - size)
        self._make_room(int(max(self._at[rows] + 1 + self._limit[rows])), int(self._limit[rows].max()))
        ids = np.full((len(prompts), max(map(len, prompts))), self._tokenizer.pad, np.int64)
        for prompt, i in prompts.items():
            ids[i, : len(prompt)] = prompt
        lengths = self._there([len(prompt) for prompt in prompts])
        of = self._there([prompts[request.prompt] for request in taken])
        hidden = self.policy.model.prefill(self._there(ids), lengths, self._cache, self._there(rows), of)
        self._busy[rows] = True
        self._used = max(self._used, int(rows.max()) + 1)
        return self._take(rows, self.policy.model.logits(hidden)[of])

    def _make_room(self, length: int, made: int) -> None:
        if made > self._ids.shape[1]:
            wider = _GROW * -(-made // _GROW)
            self._ids = np.pad(self._ids, ((0, 0), (0, wider - self._ids.shape[1])))
            self._logprobs = np.pad(self._logprobs, ((0, 0), (0, wider - self._logprobs.shape[1])))
        if length > self._length:
            if self._busy.any():
                self._cache.lengthen(length)
            else:
                self._cache = self.policy.model.cache(self._rows, length)
            self._length = length

    def _there(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, np.int64), device=self._device)

    # -- rows go on ---------------------------------------------------------------------------------------------

    def _step(self) -> list[Completion]:
        n = self._used
        at = self._at[:n]
        model = self.policy.model
        hidden = model.step(self._there(self._last[:n]), self._there(at), self._cache, int(at.max()) + 1)
        return self._take(np.arange(n), model.logits(hidden))

    def _take(self, rows: Array, logits: torch.Tensor) -> list[Completion]:
        """Draws the next token of each of `rows` and ends those that are finished."""
        assert self._sampling is not None
        drawn, logprob = draw(logits, self._sampling, self._rng)
        tokens, busy, made = drawn.cpu().numpy(), self._busy[rows], self._made[rows]
        self._ids[rows, made], self._logprobs[rows, made] = tokens, logprob.cpu().numpy()
        self._last[rows] = np.where(busy, tokens, 0)
        self._at[rows] = np.where(busy, self._at[rows] + 1, 0)
        self._made[rows] = np.where(busy, made + 1, 0)
        self.tokens += int(busy.sum())
        self.steps += 1
        ended = self._eos[tokens]
        if self._may_stop is not None:
            for i in np.flatnonzero(self._may_stop[tokens] & busy & ~ended).tolist():
                ended[i] = self._stops(int(rows[i]))
        finished = []
        for i in np.flatnonzero(busy & (ended | (made + 1 >= self._limit[rows]))).tolist():
            row = int(rows[i])
            request = self._requests[row]
            size = int(self._made[row])
            assert request is not None
            ids, logprobs = self._ids[row, :size].copy(), self._logprobs[row, :size].copy()
            finished.append(Completion(request.key, ids, logprobs, "stop" if ended[i] else "length"))
            self._requests[row] = None
            self._busy[row] = False
            self._at[row] = self._made[row] = self._last[row] = 0
        if finished:
            self._shrink()
        return finished

    def _stops(self, row: int) -> bool:
        assert self._sampling is not None
        end, most = int(self._made[row]), max(map(len, self._sampling.stop))
        # A character may be four tokens; none of the texts came before the last token, which may go on after one.
        tail = self._tokenizer.decode(self._ids[row, max(0, end - 4 * most - 4) : end].tolist())
        return any(text in tail for text in self._sampling.stop)

    def _shrink(self) -> None:
        """Leaves free rows out of the next steps, unless others wait to fill them."""
        busy = np.flatnonzero(self._busy[: self._used])
        n = len(busy)
        if n and (self._waiting or self._used - n < self._used / 8):
            return
        holes, movers = np.flatnonzero(~self._busy[:n]), busy[busy >= n]
        if len(holes):
            self._cache.move(self._there(movers), self._there(holes))
            for array in (self._last, self._at, self._made, self._limit, self._ids, self._logprobs):
                array[holes] = array[movers]
            for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
                self._requests[hole], self._requests[mover] = self._requests[mover], None
            self._busy[: self._used] = np.arange(self._used) < n
        self._used = n
