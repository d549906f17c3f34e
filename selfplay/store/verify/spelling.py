"""What tokens spell, by a tokenizer that a corpus keeps: plain look-up, nothing of it is run.

A corpus may be a stranger's, and the library that tokenizers are made for compiles regular expressions and takes what
memory it is told to. Here its file is read as data: of tokenizers of letters (`of_characters`), of bytes (byte-level
BPE), and of pieces of words with a letter for the space (SentencePiece). Others are no `Spelling`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from selfplay.store.coverage import TEMPLATE, TOKENS
from selfplay.store.verify.answer import Answer

#: Bytes of a tokenizer's files together; larger ones are not kept, nor read.
MOST_BYTES = 64 * 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Letters that a decoder may put in place of others.
_MOST_INSTEAD = 16
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_EOS = "<eos>"
#: The chat template of tokenizers that have none of their own: messages as they are, the end token after each answer.
_PLAIN = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}" + _EOS + "{% endif %}{% endfor %}"


@dataclass(frozen=True)
class Spelling:
    """What a tokenizer writes for its tokens.

    pieces: token -> its text, or the letters that stand for its bytes. steps: how a text is made of pieces, each a
    function from pieces to pieces. special: tokens that are no text. eos: the token that ends a text. ends: all that
    end an answer. letters: tokens are letters of the text, so that a text has one spelling. exact: the tokens that it
    gives to a text spell that text again. framed: a chat template stands between messages.
    """

    pieces: Mapping[int, str]
    steps: tuple[Callable[[list[str]], list[str]], ...]
    special: frozenset[int]
    eos: int
    ends: frozenset[int]
    letters: bool
    exact: bool
    framed: bool

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones and without any that the tokenizer does not have."""
        pieces, special = self.pieces, self.special
        spelled = [pieces[one] for one in ids if one not in special and one in pieces]
        for step in self.steps:
            spelled = step(spelled)
        return "".join(spelled)

    def is_text(self, ids: Sequence[int]) -> bool:
        """Whether all tokens are the tokenizer's, and none is special."""
        return self.special.isdisjoint(ids) and all(one in self.pieces for one in ids)


def is_digest(name: object) -> bool:
    """Whether a row names its tokenizer as the recorder does, by the sha256 (hex) of its files."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


def kept(files: Mapping[str, str]) -> tuple[str, str] | None:
    """Digest and text of a tokenizer's files, as the table of tokenizers keeps them; None for more than `MOST_BYTES`.

    The digest is the one that rows name it by.
    """
    text = json.dumps(dict(files), sort_keys=True)
    return (hashlib.sha256(text.encode()).hexdigest(), text) if len(text) <= MOST_BYTES else None


def is_kept(digest: str, text: str | None) -> bool:
    """Whether a text is that of the files with this digest, and not too long."""
    return bool(text) and len(text or "") <= MOST_BYTES and hashlib.sha256((text or "").encode()).hexdigest() == digest


def spelling(digest: str, text: str) -> Spelling | None:
    """The tokenizer with this digest, out of its files as `kept`; None where the text has another, or is not read here.

    Raises nothing, whatever the text is.
    """
    try:
        if not is_kept(digest, text):
            return None
        files = json.loads(text)
        return _parsed(json.loads(files["tokenizer.json"]), json.loads(files.get("tokenizer_config.json", "{}")), files)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def answer_lies(answer: Answer, spelled: Spelling | None, uncovered: set[str]) -> str | None:
    """Whether the tokens of an answer spell its text, and end where it ended; None where they do.

    uncovered: gets what could not be looked at. The tokens of a text that came first are sure only if `exact`.
    """
    if spelled is None or not (answer.sampled or spelled.exact):
        uncovered.add(TOKENS)
        return None
    ids, place = answer.turn["token_ids"] or [], answer.place
    body = ids[:-1] if ids and ids[-1] in spelled.ends else ids
    if spelled.text(ids if answer.sampled else body) != answer.turn["text"]:
        return f"turn {place}: its tokens spell another text"
    if not spelled.ends.isdisjoint(body):
        return f"turn {place}: it goes on after the token that ends a text"
    if spelled.letters and not (spelled.pieces.keys() >= set(body) if answer.sampled else spelled.is_text(body)):
        return f"turn {place}: it holds tokens that are none of its tokenizer's"
    if spelled.letters and not answer.sampled and (answer.turn["finish_reason"] == "stop") != (len(body) < len(ids)):
        return f"turn {place} ended by {answer.turn['finish_reason']!r}, and its last token says otherwise"
    return None


def unread(spelled: Spelling | None) -> str | None:
    """What of prompts is not covered where tokens are read as data alone: a key of `coverage.UNCOVERED`, or None."""
    if spelled is None or not (spelled.exact or spelled.framed):
        return TOKENS
    return TEMPLATE if spelled.framed else None


def prompt_lies(answer: Answer, spelled: Spelling) -> str | None:
    """Whether the tokens before an answer spell what its seat was told, by a tokenizer that leaves nothing `unread`."""
    ids, start = answer.turn["suffix_ids"] or [], 0
    if answer.last is None:  # what the tokenizer puts before every text
        while not spelled.letters and start < len(ids) and ids[start] in spelled.special - {spelled.eos}:
            start += 1
    else:  # the end of an answer that did not end itself
        last = answer.last["token_ids"] or []
        if not last or last[-1] not in spelled.ends:
            if ids[:1] != [spelled.eos]:
                return f"turn {answer.place}: the answer before it did not end, and what follows does not end it"
            start = 1
    rest = ids[start:]
    if not spelled.is_text(rest) or spelled.text(rest) != answer.told:
        return f"turn {answer.place}: the tokens before it do not spell what its seat was told"
    return None


def _parsed(made: dict[str, Any], settings: dict[str, Any], files: dict[str, str]) -> Spelling | None:
    model, added = made["model"], made.get("added_tokens") or []
    listed = enumerate(row[0] for row in model["vocab"]) if model["type"] == "Unigram" else _turned(model["vocab"])
    pieces = {int(token): str(piece) for token, piece in listed}
    pieces |= {int(one["id"]): str(one["content"]) for one in added}
    special = frozenset(int(one["id"]) for one in added if one["special"])
    tokens = {piece: token for token, piece in pieces.items()}
    ends: Any = settings["eos_token"]
    eos = tokens[ends["content"] if isinstance(ends, dict) else ends]
    steps = _steps(made["decoder"])
    letters = (model["type"], made["decoder"]["type"]) == ("WordLevel", "Fuse")
    exact = made.get("normalizer") is None and not made.get("truncation")
    exact = exact and not any(one.get("lstrip") or one.get("rstrip") for one in added)
    if letters:
        exact = exact and made["pre_tokenizer"] == {
            "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False
        }  # fmt: skip
    else:
        marks = (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"))
        exact = exact and steps == (_from_bytes,) and model["type"] == "BPE" and not any(marks)
        exact = exact and _LETTERS.keys() <= tokens.keys() and _splits_bytes(made["pre_tokenizer"])
    template = files.get("chat_template.jinja") or settings.get("chat_template")
    more = json.loads(files.get("generation_config.json", "{}")).get("eos_token_id")
    also = frozenset(map(int, more if isinstance(more, list) else [] if more is None else [more]))
    return Spelling(pieces, steps, special, eos, also | {eos}, letters, exact, template not in (None, _PLAIN))


def _turned(vocabulary: Mapping[str, int]) -> Iterable[tuple[int, str]]:
    return ((token, piece) for piece, token in vocabulary.items())


def _steps(decoder: Mapping[str, Any]) -> tuple[Callable[[list[str]], list[str]], ...]:
    """What a decoder does with pieces. Raises `LookupError` or `ValueError` for one that is not known here."""
    kind = decoder["type"]
    if kind == "Sequence":
        return tuple(step for one in decoder["decoders"] for step in _steps(one))
    if kind == "Replace":
        pattern, instead = str(decoder["pattern"]["String"]), str(decoder["content"])
        if not pattern or len(instead) > _MOST_INSTEAD:
            raise ValueError("a text would grow without bound")
        return (lambda pieces: [piece.replace(pattern, instead) for piece in pieces],)
    if kind == "Metaspace":
        space, dropped = str(decoder["replacement"]), decoder["prepend_scheme"] != "never"
        first = "" if dropped else " "
        return (lambda pieces: [piece.replace(space, " " if n else first) for n, piece in enumerate(pieces)],)
    if kind == "Strip" and decoder["stop"] == 0:
        content, most = str(decoder["content"]), int(decoder["start"])
        return (lambda pieces: [piece[_leading(piece, content, most) :] for piece in pieces],)
    return ({"Fuse": _fused, "ByteFallback": _bytes_joined, "ByteLevel": _from_bytes}[kind],)


def _leading(piece: str, letter: str, most: int) -> int:
    count = 0
    while count < min(most, len(piece)) and piece[count] == letter:
        count += 1
    return count


def _fused(pieces: list[str]) -> list[str]:
    return ["".join(pieces)]


def _bytes_joined(pieces: list[str]) -> list[str]:
    """Pieces such as <0xE4> that follow one another, as the text that they are; U+FFFD each where they are none."""
    found: list[str] = []
    for are_bytes, some in groupby(pieces, key=lambda piece: _BYTE.fullmatch(piece) is not None):
        if not are_bytes:
            found += some
            continue
        written = bytes(int(piece[3:5], 16) for piece in some)
        try:
            found.append(written.decode())
        except UnicodeDecodeError:
            found += ["\ufffd"] * len(written)
    return found


def _splits_bytes(step: Any) -> bool:
    """Whether a text is cut somehow, its parts are written as bytes, and nothing is added or lost."""
    if step["type"] == "Sequence":
        steps = step["pretokenizers"]
        return all(map(_splits_bytes, steps)) and any(one["type"] == "ByteLevel" for one in steps)
    if step["type"] == "ByteLevel":
        return not step.get("add_prefix_space", True)
    return bool(step["type"] == "Digits" or (step["type"] == "Split" and step["behavior"] != "Removed"))


def _letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies: itself where it can be seen, else one above."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in seen}
    unseen = (byte for byte in range(256) if byte not in letters.values())
    return letters | {chr(256 + n): byte for n, byte in enumerate(unseen)}


_LETTERS = _letters()


def _from_bytes(pieces: list[str]) -> list[str]:
    """The text of byte-level pieces; bytes that are no UTF-8 become U+FFFD."""
    written = bytearray()
    for piece in pieces:
        try:
            written += bytes([_LETTERS[letter] for letter in piece])
        except KeyError:  # an added token stands for itself
            written += piece.encode()
    return [written.decode("utf-8", "replace")]
