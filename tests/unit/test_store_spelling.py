"""What tokens spell is read as data, twice over, and is what the library that tokenizers are made for says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers")

from selfplay.store.release.verifier.dialogues import Pieces  # noqa: E402
from selfplay.store.verify.spelling import Spelling, kept, spelling  # noqa: E402

TEXTS = ["hello wörld 四 hello", "  two  spaces\n\tand a tab", "1 + 2 = 3, naïve café", "🙂🙃 hello"]
END = "<eos>"


def of_bytes(**options: Any) -> Any:
    """A byte-level tokenizer with an added token that is no special one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=[END], initial_alphabet=letters))
    made.add_tokens(["<tool ü>"])
    return made


def of_letters() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = ["<pad>", END, *sorted(set("".join(TEXTS)))]
    made = Tokenizer(models.WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(["<pad>", END])
    return made


def of_words() -> Any:
    """As SentencePiece makes them: a letter for the space, and bytes for what there is no piece for."""
    from tokenizers import Tokenizer, decoders, models

    lettered = [f"<0x{n:02X}>" for n in (*range(32, 48), *"四ö".encode())]
    words = [END, "<pad>", "▁", "▁▁", "▁hello", "hello", "ö", "w", "<0x9B>x", "<0xZZ>", *lettered]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(words))}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<pad>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens([END, "<pad>"])
    return made


def of_scored_words() -> Any:
    from tokenizers import Tokenizer, decoders, models

    made = Tokenizer(models.Unigram([(END, 0.0), ("▁hello", -1.0), ("▁", -2.0), ("o", -3.0), ("▁▁x", -3.0)], 0, False))
    made.decoder = decoders.Metaspace()
    made.add_special_tokens([END])
    return made


def read(made: Any, **settings: Any) -> tuple[Spelling | None, Pieces]:
    """Both readers of the same files."""
    files = {"tokenizer.json": made.to_str(), "tokenizer_config.json": json.dumps({"eos_token": END, **settings})}
    digest, text = kept(files) or ("", "")
    return spelling(digest, text), Pieces(digest, text)


@pytest.mark.parametrize("make", [of_letters, of_bytes, of_words, of_scored_words])
def test_it_spells_as_the_library_does(make: Callable[[], Any]) -> None:
    made = make()
    ours, theirs = read(made)
    assert ours is not None and theirs.known and not ours.framed
    assert ours.eos == theirs.end == made.token_to_id(END)
    rng = random.Random(0)
    for _ in range(300):  # letters cut in half and tokens that there are not, too
        ids = [rng.randrange(made.get_vocab_size() + 3) for _ in range(rng.randrange(12))]
        assert ours.text(ids) == theirs.read(ids) == made.decode(ids, skip_special_tokens=True)
    exact = make in (of_letters, of_bytes)
    assert (ours.exact, theirs.faithful) == (exact, exact)
    for text in TEXTS if exact else ():
        ids = made.encode(text, add_special_tokens=False).ids
        assert ours.text(ids) == text and ours.is_text(ids)


@pytest.mark.parametrize("more", [5, [5, 6], None])
def test_all_tokens_that_end_an_answer_are_known(more: Any) -> None:
    made = of_bytes()
    files = {"tokenizer.json": made.to_str(), "tokenizer_config.json": json.dumps({"eos_token": {"content": END}})}
    digest, text = kept({**files, "generation_config.json": json.dumps({"eos_token_id": more})}) or ("", "")
    ours, theirs, end = spelling(digest, text), Pieces(digest, text), made.token_to_id(END)
    wanted = {end, *(more if isinstance(more, list) else [] if more is None else [more])}
    assert ours is not None and ours.ends == theirs.ends == wanted


def test_what_a_tokenizer_may_lose_is_not_taken_for_exact() -> None:
    prefixed, normalised, stripping = of_bytes(add_prefix_space=True), of_bytes(), of_bytes()
    normalised.normalizer = tokenizers.normalizers.NFKC()
    stripping.add_tokens([tokenizers.AddedToken("<s>", lstrip=True)])
    for made in (prefixed, normalised, stripping):
        ours, theirs = read(made)
        assert ours is not None and not ours.exact and theirs.known and not theirs.faithful
    ours, theirs = read(of_letters(), chat_template="{{ messages[0]['content'] }}!")
    assert ours is not None and ours.framed and theirs.templated
    unread = of_letters()
    unread.decoder = tokenizers.decoders.WordPiece()
    regex, growing = of_words(), of_words()
    regex.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.Replace(tokenizers.Regex("▁+"), " ")])
    growing.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.Replace("▁", " " * 99)])
    for made in (unread, regex, growing):
        assert read(made)[0] is None and not read(made)[1].known


@pytest.mark.parametrize(
    "text",
    [
        "", "[" * 100_000, "{}", '{"tokenizer.json": 3}', '{"tokenizer.json": "{}", "tokenizer_config.json": "[]"}',
        json.dumps({"tokenizer.json": json.dumps({"model": {"vocab": {"a": "x"}, "type": "BPE"}, "decoder": None})}),
    ],
)  # fmt: skip
def test_a_strangers_files_are_no_tokenizer_and_no_error(text: str) -> None:
    import hashlib

    digest = hashlib.sha256(text.encode()).hexdigest()
    assert spelling(digest, text) is None and not Pieces(digest, text).known
    assert spelling("0" * 64, text) is None
