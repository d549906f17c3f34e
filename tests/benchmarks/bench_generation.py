"""Generation: our engine and transformers' own `generate`. Run: python tests/benchmarks/bench_generation.py --size 1M

Both have the same weights, prompts, limits and number of rows, sample at temperature 1 and know no end token. Ours lets
finished rows leave and waiting ones enter, and gives the log-probability of every token; `generate` takes one batch
after the other, padded on the left, each as long as its longest answer. Only tokens that were wanted count. "ragged":
limits uniform in 16 to 256; "even": all 136, their mean, where only the work around the arithmetic differs. Variants
take turns in one process and the smallest time of each counts, so that other jobs disturb ratios little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from selfplay.nets.language import LanguagePolicy, fresh, save
from selfplay.nets.language.config import LanguageConfig, PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout import Request, Sampling
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.engine import answers

#: Shape, rows and requests by size.
SIZES: dict[str, tuple[LanguageConfig, int, int]] = {
    "1M": (small(1024, 4, 128, 4, 512), 32, 128),
    "100M": (small(20_000, 12, 768, 12, 512), 8, 24),
}
_SHORTEST, _LONGEST, _MEAN = 16, 256, 136


def wanted(config: LanguageConfig, n: int, ragged: bool) -> list[Request]:
    """Prompts of 8 to 63 tokens, each wanted once."""
    rng = np.random.default_rng(0)
    limits = rng.integers(_SHORTEST, _LONGEST + 1, n) if ragged else np.full(n, _MEAN)
    prompts = [tuple(rng.integers(2, config.vocab, rng.integers(8, 64)).tolist()) for _ in range(n)]
    return [Request(i, prompts[i], Sampling(max_tokens=int(limits[i]))) for i in range(n)]


def ours(policy: LanguagePolicy, rows: int, device: str) -> Callable[[list[Request]], int]:
    """Generates, and returns how many tokens it made."""
    engine = ContinuousEngine(policy, rows)
    engine._eos[:] = False

    def run(requests: list[Request]) -> int:
        return sum(len(one.token_ids) for one in answers(engine, requests))

    return run


def theirs(path: str, rows: int, dtype: torch.dtype, device: str) -> Callable[[list[Request]], int]:
    """Generates with `transformers`, and returns how many of its tokens were wanted."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
    model.generation_config.eos_token_id = None

    def run(requests: list[Request]) -> int:
        made = 0
        for start in range(0, len(requests), rows):
            batch = requests[start : start + rows]
            longest = max(len(request.prompt) for request in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, request in enumerate(batch):
                ids[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
                mask[row, longest - len(request.prompt) :] = 1
            limits = [request.sampling.max_tokens for request in batch]
            ids, mask = ids.to(device), mask.to(device)
            most = max(limits)
            out = model.generate(ids, attention_mask=mask, max_new_tokens=most, do_sample=True, top_k=0, top_p=1.0)
            assert out.shape[1] == longest + most
            made += sum(limits)
        return made

    return run


def measure(size: str, dtypes: list[str], rounds: int, rows: int | None, device: str) -> list[dict[str, object]]:
    """A row for each dtype and each kind of lengths; tokens a second of wall time, and of CPU time."""
    config, usual, n = SIZES[size]
    rows = rows or usual
    n = n * rows // usual
    tokenizer = of_characters("0123456789")
    spec = PolicySpec(None, config, dict(tokenizer.files), config.context)
    table: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as path:
        save(fresh(spec, seed=0), path)
        for dtype in dtypes:
            policy = fresh(replace(spec, path=path, dtype=dtype), 0, device)
            variants = {
                "ours": ours(policy, rows, device),
                "transformers": theirs(path, rows, getattr(torch, dtype), device),
            }
            for kind in ("ragged", "even"):
                requests = wanted(config, n, kind == "ragged")
                due = sum(request.sampling.max_tokens for request in requests)
                best: dict[str, tuple[float, float]] = {}
                for _ in range(rounds):
                    for name, run in variants.items():
                        wall, cpu = time.perf_counter(), time.process_time()
                        assert run(requests) == due
                        spent = time.perf_counter() - wall, time.process_time() - cpu
                        last = best.get(name, spent)
                        best[name] = min(last[0], spent[0]), min(last[1], spent[1])
                row: dict[str, object] = {"size": size, "dtype": dtype, "rows": rows, "lengths": kind}
                for i, clock in enumerate(("wall", "cpu")):
                    row |= {f"{name}_{clock}": due / best[name][i] for name in variants}
                    row[f"ratio_{clock}"] = best["transformers"][i] / best["ours"][i]
                table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=["1M"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], nargs="+", default=["float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="rows of a batch; by size if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = [row for size in args.size for row in measure(size, args.dtype, args.rounds, args.rows, args.device)]
    if args.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{'size':5} {'dtype':9} {'rows':>4} {'lengths':7} {'ours/s':>9} {'theirs/s':>9} {'ratio':>6} {'of CPU':>6}")
    for row in table:
        print(
            f"{row['size']:5} {row['dtype']:9} {row['rows']:4} {row['lengths']:7} {row['ours_wall']:9.0f} "
            f"{row['transformers_wall']:9.0f} {row['ratio_wall']:6.2f} {row['ratio_cpu']:6.2f}"
        )


if __name__ == "__main__":
    main()
