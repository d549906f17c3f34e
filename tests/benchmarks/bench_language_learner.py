"""What RLlib's Learner costs a language model: its steps and those of a plain torch loop, in turns, on the same lines.

python tests/benchmarks/bench_language_learner.py --hidden 128 --layers 4 --lines 256 --length 64
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.policy import fresh
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.sampling import Sampling, sampled_logprobs
from trainers.reasoning.algorithms.sft import sft_loss
from trainers.reasoning.config import LearnerSettings
from trainers.reasoning.learner import ReasoningLearner
from trainers.reasoning.policy_loss import size_of
from trainers.reasoning.token_batch import Lessons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 128), ("layers", 4), ("lines", 256), ("length", 64), ("steps", 10), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokenizer = of_characters("0123456789+-*/=(),;!?# ")
    shape = small(tokenizer.size, given.layers, given.hidden, 4, 2 * given.length)
    spec = PolicySpec(None, shape, tokenizer.files, 2 * given.length)
    rng = np.random.default_rng(0)
    lengths = rng.integers(given.length // 2, given.length + 1, given.lines)
    ids = [rng.integers(2, tokenizer.size, n) for n in lengths]
    lessons = Lessons(ids, {"mask": [np.arange(n) > 8 for n in lengths]})
    ours = ReasoningLearner(spec, LearnerSettings(), Sampling(), 1, 0, given.threads)
    policy = fresh(spec, 0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, betas=(0.9, 0.98))
    batches = [batch for _, batch in lessons.micro_batches(LearnerSettings().micro_tokens)]

    def plain() -> None:
        optimizer.zero_grad(set_to_none=True)
        size = size_of(torch.cat([batch["mask"].sum(1, keepdim=True) > 0 for batch in batches]))
        size = type(size)(float(sum(int(batch["mask"].sum()) for batch in batches)), size.sequences)
        for batch in batches:
            mask = batch["mask"]
            hidden = policy.model.hidden(batch["ids"])
            rows, places = mask[:, 1:].nonzero(as_tuple=True)
            logits = policy.model.logits(hidden[rows, places])
            drawn = sampled_logprobs(logits, batch["ids"][rows, places + 1], Sampling())
            new = torch.zeros(mask.shape).index_put((rows, places + 1), drawn)
            sft_loss(new, mask, size=size)[0].backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()

    spent: dict[str, list[float]] = {"rllib": [], "plain": []}
    for step in range(given.steps + 1):
        for name, run in (("rllib", lambda: ours.supervise(lessons, 1e-4)), ("plain", plain)):
            began = time.perf_counter()
            run()
            if step:
                spent[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(times) for name, times in spent.items()}
    result = {**seconds, "overhead": seconds["rllib"] / seconds["plain"] - 1, "parameters": shape.parameters}
    if given.json:
        print(json.dumps(result))
    else:
        print(f"{shape.parameters / 1e6:.2f} M parameters, {given.lines} lines of {given.length} tokens at most")
        print(f"RLlib {1e3 * seconds['rllib']:.1f} ms a step, plain torch {1e3 * seconds['plain']:.1f} ms: "
              f"{100 * result['overhead']:+.1f}%")  # fmt: skip
        print("next: selfplay run parity_cot")


if __name__ == "__main__":
    main()
