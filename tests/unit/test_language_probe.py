"""A stranger's tokenizer or chat template that never ends, takes all memory or breaks its library is one sentence."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tokenizers")

from selfplay.errors import UserError
from selfplay.nets.language import probe
from selfplay.nets.language.tokenizer import Tokenizer, of_characters

PLAIN = of_characters("ab")


def with_template(template: str) -> dict[str, str]:
    return {**PLAIN.files, "chat_template.jinja": template}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 2 s"),
        ("{% set s = 'a' * 10**10 %}{{ s }}", "more than 1 GiB"),
        ("{% for i in range(10**12) %}{{ i }}{% endfor %}", None),  # refused by the sandbox where it is used
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", None),
    ],
)
def test_a_template_that_does_not_come_to_an_end_is_refused(
    template: str, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "CPU_S", 2.0)
    monkeypatch.setattr(probe, "MEMORY_BYTES", 2**30)
    if error is None:
        probe.refuse_unusable(with_template(template), "it")
    else:
        with pytest.raises(UserError, match=error):
            probe.refuse_unusable(with_template(template), "it")


def broken() -> dict[str, str]:
    """A tokenizer over which the library panics: its pairs are to lose a longer beginning than they have."""
    backend = json.loads(PLAIN.files["tokenizer.json"])
    backend["model"] = {"type": "BPE", "continuing_subword_prefix": "abcdefgh", "vocab": {"a": 0, "b": 1, "ab": 2}}
    backend["model"]["merges"] = ["a b"]
    return {**PLAIN.files, "tokenizer.json": json.dumps(backend)}


def test_a_tokenizer_that_breaks_its_library_is_one_sentence() -> None:
    with pytest.raises(UserError, match="breaks its library"):
        Tokenizer(broken(), "the tokenizer in here")


@pytest.mark.slow
def test_and_it_is_found_out_in_another_process() -> None:
    with pytest.raises(UserError, match="is no tokenizer: its library breaks down over it"):
        probe.refuse_unusable(broken(), "the tokenizer in here")
