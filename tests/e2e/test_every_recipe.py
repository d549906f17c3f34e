"""Every recipe leaves a true corpus: killed, gone on with, compacted, vacuumed and released, by both verifiers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfplay import store
from selfplay.nets.language.tokenizer import of_characters
from trainers.alphazero.config import RunConfig
from trainers.recipe import load_recipe, shipped

Start = Callable[..., Any]

#: Nets so small, and windows so short, that seconds hold several versions; what makes a recipe itself stays as it is.
GAME = [
    "--set=net.channels=16", "--set=net.blocks=2", "--set=selfplay.games=16", "--set=selfplay.refresh_moves=4",
    "--set=learner.window_initial=300", "--set=learner.batch=64", "--set=learner.publish_every_samples=1000",
    "--set=evaluation.games=2", '--set=evaluation.opponents=["random"]', "--set=evaluation.exact_positions=0",
]  # fmt: skip
REASONING = [
    "--set=generation.prompts=8", "--set=generation.group=4", "--set=generation.rows=32",
    "--set=evaluation.problems=16", "--set=evaluation.every_s=5", "--set=run.checkpoint_every_s=3",
]  # fmt: skip
FRESH = [
    "--set=policy.hidden=32", "--set=policy.layers=1", "--set=policy.heads=2",
    "--set=warm.episodes=150", "--set=warm.steps=4", "--set=warm.batch=16",
]  # fmt: skip


def a_model(folder: Path) -> Path:
    """A small Hugging Face directory with random weights, as from elsewhere."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    tokenizer = of_characters("\n" + "".join(map(chr, range(32, 127))))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": tokenizer.eos[0], "pad_token_id": tokenizer.pad, "bos_token_id": None}
    config = LlamaConfig(vocab_size=tokenizer.size, max_position_embeddings=512, **shape, **ids)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name, text in tokenizer.files.items():
        (folder / name).write_text(text)
    return folder


def settings_of(recipe: str, folder: Path) -> tuple[list[str], list[str]]:
    """What makes it small, and what ends it soon after it has learned something."""
    model = [f"--set=policy.path={a_model(folder / 'model')}"] if recipe == "hf_grpo" else []
    if isinstance(load_recipe(recipe, [flag.removeprefix("--set=") for flag in model]), RunConfig):
        return GAME, ["--set=run.positions=2500"]
    return [*REASONING, *(model and [*model, "--set=generation.max_tokens=40"] or FRESH)], ["--set=run.rounds=4"]


def selfplay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("selfplay")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def has_learned(out: Path) -> bool:
    """Whether a version was published that was learned in the run."""
    try:
        return any(version > 0 for version in store.open(str(out)).table("policies")["version"].to_pylist())
    except Exception:  # the table is being made at this moment
        return False


def true(*arguments: str | Path) -> dict[str, Any]:
    """What `corpus verify` says of a corpus in which nothing is false."""
    done = selfplay("corpus", "verify", *arguments, "--strict", "--json")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["false"] == 0 and said["true"] > 0
    return said


@pytest.mark.slow
@pytest.mark.parametrize("recipe", shipped())
def test_a_recipe_leaves_a_true_corpus(recipe: str, start: Start, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small, end = settings_of(recipe, tmp_path)
    command = [recipe, "--out", out, "--minutes", "30", *small]
    driver = start(*command)
    driver.until(lambda: has_learned(out), "a version that was learned")
    driver.until_archived(out)
    driver.kill()
    driver.until_gone()
    true(out)

    driver = start(*command, *end)
    assert driver.wait() == 0, driver.told
    said = true(out)
    for verb, *yes in (["compact"], ["vacuum", "--yes"]):
        done = selfplay("corpus", verb, out, *yes)
        assert done.returncode == 0, done.stdout + done.stderr
    assert true(out)["true"] == said["true"]
    weighed = true(out, "--weights", "--sample", "60", "--searches", "20")
    assert weighed["weights"]

    done = selfplay("corpus", "release", "first", out)
    assert done.returncode == 0, done.stdout + done.stderr
    corpus = out / "corpus"
    stranger = [sys.executable, corpus / "released" / "first" / "verify_corpus.py", corpus]
    told = subprocess.run(list(map(str, stranger)), capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
