"""Answers end with texts, wherever tokens begin and end; the model here writes a script."""

from __future__ import annotations

from functools import cache

import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer as Backend  # noqa: E402
from tokenizers import decoders, models, pre_tokenizers  # noqa: E402

from selfplay.nets.language import LanguagePolicy  # noqa: E402
from selfplay.nets.language.config import small  # noqa: E402
from selfplay.nets.language.policy import PolicySpec  # noqa: E402
from selfplay.nets.language.tokenizer import Tokenizer  # noqa: E402
from selfplay.rollout import Request, Sampling  # noqa: E402
from selfplay.rollout.continuous import ContinuousEngine  # noqa: E402
from selfplay.rollout.engine import answers  # noqa: E402


@cache
def byte_level() -> Tokenizer:
    """Bytes, some merged: tokens that hold a stop string's end, its middle, or a part of a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "/"), ("a", "n"), ("an", "s"), (">", "b"), ("Ġ", "x"), ("#", "#"), ("c", "#"), ("c#", "d")]
    words = ["<pad>", "<eos>", *alphabet, *(a + b for a, b in merges)]
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(False, use_regex=False), decoders.ByteLevel()
    backend.add_special_tokens(["<pad>", "<eos>"])
    return Tokenizer({"tokenizer.json": backend.to_str(), "tokenizer_config.json": '{"eos_token": "<eos>"}'})


class Scripted(torch.nn.Module):
    """Writes the given tokens one after the other, whatever it is shown."""

    vocab = byte_level().size + 5

    def __init__(self, script: list[int]) -> None:
        super().__init__()
        self.script, self.place = script, 0

    def cache(self, rows: int, length: int) -> None:
        return None

    def prefill(self, *_: object) -> torch.Tensor:
        return torch.zeros(1, 1)

    step = prefill

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        token, self.place = self.script[self.place], self.place + 1
        return torch.nn.functional.one_hot(torch.tensor([token]), self.vocab).float() * 50


@pytest.mark.parametrize(
    ("text", "stop", "written"),
    [
        ("1</ans>2", "</ans>", "1</ans>"),
        ("1</ans>b2", "</ans>", "1</ans>b"),  # the last token goes on after it
        ("ac#de", "#", "ac#d"),  # in the middle of a token
        ("a##b", "#", "a##"),
        ("1 x2", " x", "1 x"),
        ("1 x2", " ", "1 x"),  # the beginning of a token
        ("日本語です", "本語", "日本語"),
        ("🙂a", "🙂", "🙂"),
        ("an ansatz", "ansa", "an ansa"),
        ("12", "ans", "12"),
    ],
)
def test_an_answer_ends_with_a_stop_text_wherever_tokens_end(text: str, stop: str, written: str) -> None:
    tokenizer = byte_level()
    script = [*tokenizer.encode(text), tokenizer.eos[0]]
    spec = PolicySpec(None, small(8, 1, 8, 1, 200), dict(tokenizer.files), 200)
    engine = ContinuousEngine(LanguagePolicy(spec, Scripted(script), "cpu"), rows=1)
    (one,) = answers(engine, [Request(0, (2,), Sampling(temperature=0, stop=("never", stop)))])
    assert tokenizer.decode(one.token_ids.tolist()) == written and one.finish_reason == "stop"


def test_a_model_may_have_more_tokens_than_its_tokenizer() -> None:
    tokenizer = byte_level()
    script = [tokenizer.size + 1, tokenizer.size + 4, *tokenizer.encode("ok"), tokenizer.eos[0]]
    spec = PolicySpec(None, small(8, 1, 8, 1, 200), dict(tokenizer.files), 200)
    policy = LanguagePolicy(spec, Scripted(script), "cpu")
    (one,) = answers(ContinuousEngine(policy, rows=1), [Request(0, (2,), Sampling(temperature=0, stop=("x",)))])
    assert one.token_ids.tolist() == script and tokenizer.decode(script) == "ok"
