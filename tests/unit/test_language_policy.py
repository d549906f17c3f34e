"""Language models: ours computes what `transformers` computes, others behave like ours, bad directories are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from selfplay.errors import UserError  # noqa: E402
from selfplay.nets.language import LanguageConfig, LanguagePolicy, fresh, load, save  # noqa: E402
from selfplay.nets.language.config import small  # noqa: E402
from selfplay.nets.language.policy import PolicySpec  # noqa: E402
from selfplay.nets.language.tokenizer import Tokenizer, of_characters  # noqa: E402

torch.set_num_threads(1)
TOKENIZER = of_characters("0123456789+*=#;,.abcdefghij")
VOCAB = TOKENIZER.size
IDS = torch.arange(24).view(2, 12) % VOCAB
QWEN = LanguageConfig(VOCAB, 2, 32, 48, 4, 2, 12, 64, rope_theta=5e4, qkv_bias=True, tie=False)
SHAPES = {
    "llama": small(VOCAB, 2, 32, 4, 64),
    "qwen2": QWEN,
    "untied llama": replace(QWEN, qkv_bias=False),
    "positions in the first layer": small(VOCAB, 3, 32, 4, 64, "first"),
    "no positions": small(VOCAB, 2, 32, 4, 64, "none"),
}
COMMON = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
DECODER = {**COMMON, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
           "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}  # fmt: skip
FOREIGN: dict[str, Callable[[], object]] = {
    "gpt2": lambda: transformers.GPT2Config(**COMMON, n_positions=64, n_embd=32, n_layer=2, n_head=4),
    "mistral": lambda: transformers.MistralConfig(**DECODER, sliding_window=None, head_dim=8),
    "mistral with a window": lambda: transformers.MistralConfig(**DECODER, sliding_window=5, head_dim=8),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER, head_dim=16),
    "qwen3 with windows": lambda: transformers.Qwen3Config(
        **DECODER, head_dim=16, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "llama3": lambda: transformers.LlamaConfig(**DECODER, rope_parameters=ROPE),
}


def spec_of(config: LanguageConfig, tokenizer: Tokenizer = TOKENIZER, **changes: object) -> PolicySpec:
    return replace(PolicySpec(None, config, dict(tokenizer.files), config.context), **changes)


def directory(path: Path, config: object) -> Path:
    """A Hugging Face directory with random weights."""
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for p in model.parameters():
        p.data.normal_(0, 0.2) if p.ndim > 1 else p.data.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(path)
    for name, text in TOKENIZER.files.items():
        (path / name).write_text(text)
    return path


def stirred(policy: LanguagePolicy) -> LanguagePolicy:
    """With no parameter at its beginning, so that none can be forgotten."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, p in policy.trained():
            p.add_(torch.randn(p.shape, generator=rng).to(p) * 0.05)
    return policy


def generated(policy: LanguagePolicy, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states `[B, T - first + 1, width]` from place `first - 1` on, the way that generation computes them.

    The rows begin one token apart, lie in the cache in the opposite order, and grow in it.
    """
    model, (b, t) = policy.model, ids.shape
    rows = torch.arange(b)
    cache = model.cache(b, first + b)
    lengths = first - rows
    last = model.prefill(ids[:, :first], lengths, cache, rows.flip(0), rows)
    cache.move(rows.flip(0), rows)
    cache.lengthen(t)
    out = [[last[row]] for row in range(b)]
    for step in range(t - first + b):
        at = torch.minimum(lengths + step, torch.tensor(t - 1))
        hidden = model.step(ids[rows, at], at, cache, int(at.max()) + 1)
        for row in range(b):
            if int(lengths[row]) + step < t:
                out[row].append(hidden[row])
    return torch.stack([torch.stack(one[-(t - first + 1) :]) for one in out])


@pytest.mark.parametrize("name", SHAPES)
def test_ours_is_what_transformers_computes_and_what_is_saved_needs_nothing_of_ours(name: str, tmp_path: Path) -> None:
    policy = stirred(fresh(spec_of(SHAPES[name]), seed=1))
    save(policy, str(tmp_path))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.num_parameters() == SHAPES[name].parameters == sum(p.numel() for p in policy.parameters())
    with torch.no_grad():
        ours, wanted = policy.model.logits(policy.model.hidden(IDS)), theirs(IDS).logits
        assert wanted.std() > 0.1 and (ours - wanted).abs().max() < 1e-4
        stepped = policy.model.logits(generated(policy, IDS, 5))
        assert (stepped - wanted[:, 4:]).abs().max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "12+3=15#a;"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == policy.tokenizer.encode(text)
    assert tokenizer.decode(policy.tokenizer.encode(text)) == text == policy.tokenizer.decode(TOKENIZER.encode(text))
    again = fresh(load(str(tmp_path)), seed=9)
    assert again.spec.config == SHAPES[name] and torch.equal(again.model.logits(again.model.hidden(IDS)), ours)


@pytest.mark.parametrize("given", [{}, {"no_rope_layer_interval": 2}, {"no_rope_layers": [0, 1, 1, 0]}])
def test_smollm3_is_ours_with_its_layers_without_positions(given: dict[str, object], tmp_path: Path) -> None:
    config = transformers.SmolLM3Config(**{**DECODER, "num_hidden_layers": 4}, **given)
    policy = fresh(load(str(directory(tmp_path, config))), seed=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert policy.spec.config is not None and policy.spec.config.unturned
    with torch.no_grad():
        wanted = theirs(IDS).logits
        assert (policy.model.logits(policy.model.hidden(IDS)) - wanted).abs().max() < 1e-4
    assert PolicySpec.from_json(policy.spec.to_json()) == policy.spec


@pytest.mark.parametrize("name", FOREIGN)
def test_other_models_compute_what_they_compute(name: str, tmp_path: Path) -> None:
    policy = fresh(load(str(directory(tmp_path / "in", FOREIGN[name]()))), seed=0)
    assert policy.spec.config is None
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in")
    with torch.no_grad():
        wanted = theirs(IDS).logits
        assert (policy.model.logits(policy.model.hidden(IDS)) - wanted).abs().max() < 1e-4
        assert (policy.model.logits(generated(policy, IDS, 4)) - wanted[:, 3:]).abs().max() < 1e-4
        stirred(policy)
        save(policy, str(tmp_path / "out"))
        changed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert (changed(IDS).logits - policy.model.logits(policy.model.hidden(IDS))).abs().max() < 1e-5
        assert (changed(IDS).logits - wanted).abs().max() > 1e-2
        policy.train()
        assert torch.equal(policy.model.hidden(IDS), policy.model.hidden(IDS)), "no dropout where it is learned from"


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_lora_trains_adapters_only_and_saves_whole_weights(name: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    if name == "llama":
        save(fresh(spec_of(SHAPES[name]), seed=1), str(source))
    else:
        directory(source, FOREIGN[name]())
    spec = load(str(source), lora_rank=4, value_head=True)
    policy, whole = fresh(spec, seed=0), fresh(load(str(source)), seed=0)
    names = [name for name, _ in policy.trained() if not name.startswith("value_head")]
    assert names and all("lora_" in name for name in names)
    assert sum(p.numel() for _, p in policy.trained()) < sum(p.numel() for _, p in whole.trained()) / 2
    with torch.no_grad():
        before = whole.model.logits(whole.model.hidden(IDS))
        assert torch.allclose(policy.model.logits(policy.model.hidden(IDS)), before, atol=1e-5)
    loss = policy.model.logits(policy.model.hidden(IDS)).square().sum() + policy.values(policy.model.hidden(IDS)).sum()
    loss.backward()
    assert {name for name, p in policy.named_parameters() if p.grad is not None} == {n for n, _ in policy.trained()}
    assert fresh(spec, 4).to_arrays().keys() == policy.to_arrays().keys()
    assert all((a == b).all() for a, b in zip(*(fresh(spec, 4).to_arrays().values() for _ in range(2)), strict=True))
    save(stirred(policy), str(tmp_path / "out"))
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        after = policy.model.logits(policy.model.hidden(IDS))
        assert (merged(IDS).logits - after).abs().max() < 1e-4 and (after - before).abs().max() > 1e-2
    assert not any("lora" in name for name in load_file(tmp_path / "out" / "model.safetensors"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_go_round(dtype: str) -> None:
    spec = PolicySpec.from_json(spec_of(QWEN, value_head=True, dtype=dtype).to_json())
    assert spec == spec_of(QWEN, value_head=True, dtype=dtype)
    one, other = stirred(fresh(spec, seed=1)), fresh(spec, seed=2)
    assert not all((a == b).all() for a, b in zip(one.to_arrays().values(), other.to_arrays().values(), strict=True))
    other.from_arrays(one.to_arrays())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    same = fresh(spec, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), fresh(spec, seed=1).parameters(), strict=True))
    few = one.to_arrays()
    few.popitem()
    for wrong in (few, fresh(spec_of(SHAPES["llama"]), 0).to_arrays()):
        with pytest.raises(UserError, match="these weights are of another language model"):
            other.from_arrays(wrong)


def test_a_value_head_is_saved_and_found_again(tmp_path: Path) -> None:
    policy = stirred(fresh(spec_of(SHAPES["llama"], value_head=True), seed=1))
    save(policy, str(tmp_path))
    again = fresh(load(str(tmp_path), value_head=True), seed=2)
    hidden = policy.model.hidden(IDS)
    assert torch.equal(policy.values(hidden), again.values(again.model.hidden(IDS)))
    assert fresh(load(str(tmp_path)), seed=2).value_head is None
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "value_head.safetensors")
    with pytest.raises(UserError, match="is no value head of this model"):
        fresh(load(str(tmp_path), value_head=True), seed=2)


# What cannot be used.


def change(path: Path, **values: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **values}))


def weights(path: Path, changed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = path / "model.safetensors"
    save_file(changed(load_file(file)), file, {"format": "pt"})


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "it has no config.json"),
    "no JSON": (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
    "no object": (lambda d: (d / "config.json").write_text("[]"), "holds no object"),
    "no text": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe{"), "config.json is not JSON"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "holds no weights"),
    "pickled": (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pickled weights are never"),
    "own code": (lambda d: change(d, auto_map={"AutoModel": "x.Y"}), "needs Python code of its own"),
    "cut off": (lambda d: cut(d / "model.safetensors", 4000), "holds no weights that can be read"),
    "empty weights": (lambda d: cut(d / "model.safetensors", 0), "holds no weights that can be read"),
    "too narrow": (lambda d: change(d, intermediate_size=32), r"down_proj.weight is \[32, 96\], and \[32, 32\] follow"),
    "one number": (
        lambda d: weights(d, lambda t: {**t, "model.norm.weight": torch.ones(1)}),
        r"model.norm.weight is \[1\], and \[32\] follow",
    ),
    "a layer too few": (
        lambda d: weights(d, lambda t: {n: v for n, v in t.items() if "layers.1" not in n}),
        "the weights lack 9 tensors, model.layers.1.input_layernorm.weight among them",
    ),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "broken tokenizer": (lambda d: (d / "tokenizer.json").write_text("{}"), "is no tokenizer"),
    "no end": (lambda d: (d / "tokenizer_config.json").write_text("{}"), "names no token that ends a text"),
    "small vocabulary": (lambda d: change(d, vocab_size=8), f"the tokenizer has {VOCAB} tokens, the model 8"),
    "no width": (lambda d: change(d, hidden_size=None), "describes no language model"),
    "no heads": (lambda d: change(d, num_attention_heads=0, head_dim=None), "describes no language model"),
    "rope in a word": (lambda d: change(d, rope_parameters="far"), "describes no language model"),
    "no context": (lambda d: change(d, max_position_embeddings=None), "describes no language model"),
    "unknown kind": (lambda d: change(d, model_type="lllama"), "transformers cannot load"),
    "no language model": (lambda d: change(d, model_type="vit"), "transformers cannot load"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_directory_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    save(fresh(spec_of(SHAPES["llama"]), seed=1), str(tmp_path))
    fresh(load(str(tmp_path)), seed=0)
    spoil, said = BAD[name]
    spoil(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        fresh(load(str(tmp_path)), seed=0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


def test_other_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no directory"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="give policy.path"):
        fresh(spec_of(SHAPES["llama"], lora_rank=4), seed=0)
    with pytest.raises(ValueError, match="must be a multiple of twice the heads"):
        small(VOCAB, 1, 30, 4, 64)
    with pytest.raises(UserError, match="the tokenizer has no token for 'X' 'Z' of '1XZ'"):
        TOKENIZER.encode("1XZ")


def test_models_that_generation_would_compute_wrongly_are_refused(tmp_path: Path) -> None:
    for name, config, said in (
        ("bloom", transformers.BloomConfig(**COMMON, hidden_size=32, n_layer=2, n_head=4), "transformers cannot load"),
        (
            "cohere",
            transformers.CohereConfig(**DECODER, logit_scale=0.1),
            "models of type cohere change their logits after the last layer",
        ),
    ):
        change(directory(tmp_path / name, config), max_position_embeddings=64)
        with pytest.raises(UserError, match=said):
            fresh(load(str(tmp_path / name)), seed=0)


def test_a_directory_says_in_three_files_what_ends_an_answer(tmp_path: Path) -> None:
    for name, text in TOKENIZER.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b" " * 24)
    about = {"model_type": "gpt2", "n_positions": 64, "vocab_size": VOCAB}

    def ends(config: object, generation: object = None) -> tuple[int, ...]:
        (tmp_path / "config.json").write_text(json.dumps({**about, "eos_token_id": config}))
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
        return Tokenizer(load(str(tmp_path)).tokenizer).eos

    assert ends(None) == ends(1) == ends([1], 1) == TOKENIZER.eos == (1,)
    assert load(str(tmp_path)).tokenizer == TOKENIZER.files, "nothing is added where nothing is new"
    assert ends([1, 4], [5, 4]) == (1, 4, 5) and ends(None, 3) == (1, 3)
    for wrong in (VOCAB, -1, "1", [[1]], [1] * 1000):
        with pytest.raises(UserError, match="config.json: eos_token_id must be one of the tokenizer's tokens"):
            ends(wrong)
