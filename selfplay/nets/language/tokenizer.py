"""Text to tokens and back: a tokenizer in Hugging Face's form, and how a dialogue becomes one line of tokens.

A policy is shown messages and writes answers; both stand in one line of tokens. Where the tokenizer has a chat
template, that decides what stands between them; where it has none, messages follow one another as they are, and each
answer ends with the token that ends a text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from tokenizers import Encoding, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from selfplay.contract import Message
from selfplay.errors import UserError

PAD, EOS = "<pad>", "<eos>"
#: Files of a tokenizer in a model's directory.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
#: Where a tokenizer's files name more tokens that end an answer, by `eos_token_id`: a model's settings of generation.
ENDS_FILE = "generation_config.json"
#: More than any model has.
_MOST_ENDS = 64
_PLAIN = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}" + EOS + "{% endif %}{% endfor %}"
_HERE = "\u2047answer\u2047"


class Broken(UserError):
    """The tokenizers library has met what it holds for impossible: the files, or what they made of a text, break it."""


@contextlib.contextmanager
def _unbroken(source: str) -> Iterator[None]:
    """Raises `Broken` for a panic of the library, which is no `Exception` and would end a process."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Broken(f"{source} breaks its library: {(str(error).splitlines() or [''])[0][:200]}") from None


class Tokenizer:
    """A tokenizer made of its files' texts, so that it travels as JSON. Tokens are those of `tokenizer.json`.

    eos: ids of the tokens that end an answer, the first is the usual one. pad: id that fills up batches.
    """

    def __init__(self, files: Mapping[str, str], source: str = "the tokenizer") -> None:
        """Raises `UserError` where the files are no tokenizer, or name no token that ends a text."""
        self.files = dict(files)
        try:
            with _unbroken(source):
                self._backend = Backend.from_str(self.files["tokenizer.json"])
            self._backend.no_truncation()  # a file may hold what was set when it was written
            self._backend.no_padding()
            self._settings: dict[str, Any] = dict(json.loads(self.files.get("tokenizer_config.json", "{}")))
        except KeyError:
            raise UserError(f"{source} has no tokenizer.json") from None
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{source} is no tokenizer: {str(error)[:200]}") from None
        eos, pad = (self._backend.token_to_id(self._named(name) or "") for name in ("eos_token", "pad_token"))
        if eos is None:
            raise UserError(f"{source} names no token that ends a text (eos_token in tokenizer_config.json)")
        self.eos: tuple[int, ...] = tuple(dict.fromkeys((eos, *self._more_ends(source))))
        self.pad: int = eos if pad is None else pad
        template = _template(self.files.get("chat_template.jinja") or self._settings.get("chat_template"), source)
        self._template: str | None = None if template == _PLAIN else template
        added = self._backend.get_added_tokens_decoder().items()
        #: Ids that no message may bring in: of special tokens, and of other added ones that end an answer or that the
        #: template writes, such as those that begin a turn; words and white space are not meant by that.
        self._control = {
            i for i, token in added if token.special or i in self.eos or _is_mark(token.content, self._template or "")
        }
        #: Tokens that the tokenizer puts before every text: "<s>" of many.
        with _unbroken(source):
            self._before = [i for i in self._backend.encode("", add_special_tokens=True).ids if i not in self.eos]
        if len(self.eos) > 1 and self._template is not None and (end := self._end_of_turn()) is not None:
            self.eos = tuple(dict.fromkeys((end, *self.eos)))

    def _more_ends(self, source: str) -> tuple[int, ...]:
        try:
            settings = json.loads(self.files.get(ENDS_FILE, "{}"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}: {ENDS_FILE} is not JSON: {str(error)[:200]}") from None
        return self.ends_of(settings, f"{source}: {ENDS_FILE}")

    def ends_of(self, settings: object, source: str) -> tuple[int, ...]:
        """The ids of `eos_token_id` in a model's settings, which may be one or a list; () where there is none.

        Raises `UserError` for what is no token.
        """
        given = settings.get("eos_token_id") if isinstance(settings, dict) else None
        ids = given if isinstance(given, list) else [] if given is None else [given]
        if len(ids) > _MOST_ENDS or not all(map(self._is_token, ids)):
            wanted = f"one of the tokenizer's tokens, or a list of at most {_MOST_ENDS}"
            raise UserError(f"{source}: eos_token_id must be {wanted}, and is {str(given)[:60]}")
        return tuple(ids)

    def _is_token(self, i: object) -> bool:
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31:
            return False
        return self._backend.id_to_token(i) is not None

    def _end_of_turn(self) -> int | None:
        """The token that the chat template puts after an answer, where it is one that ends an answer."""
        ids = self.following([Message("user", "-")], ended=False)
        return ids[0] if ids and ids[0] in self.eos else None

    @property
    def size(self) -> int:
        """Tokens that there are, special ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of what decides text and tokens."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without any added at its ends; a text that spells a special token means its letters.

        Raises `UserError` for text that it cannot write.
        """
        found = self._encoded(text, letters=True)
        # Control tokens that are left are not marked as special in the file: the text is parted within each.
        parted = [first + 1 for first, end in self._controls(found) if end - first > 1]
        if not parted:
            return list(found.ids)
        places = pairwise([0, *parted, len(text)])
        return [i for first, end in places for i in self.encode(text[first:end])]

    def _controls(self, found: Encoding) -> list[tuple[int, int]]:
        """Where in the text its control tokens stand: (first character, the one after the last) of each."""
        return [place for i, place in zip(found.ids, found.offsets, strict=True) if i in self._control]

    def _encoded(self, text: str, letters: bool) -> Encoding:
        self._backend.encode_special_tokens = letters
        try:
            with _unbroken("the tokenizer"):
                return self._backend.encode(text, add_special_tokens=False)
        except UserError:
            raise
        except Exception:
            missing = sorted({c for c in text if self._backend.token_to_id(c) is None})
            shown = " ".join(repr(c) for c in missing[:5])
            raise UserError(f"the tokenizer has no token for {shown or 'a part'} of {text[:40]!r}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        with _unbroken("the tokenizer"):
            return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def parts(self, ids: Sequence[int]) -> list[int | str]:
        """The tokens that no message may bring in, and the texts between them: the same however a text is split."""
        found: list[int | str] = []
        for control, some in groupby(ids, key=lambda one: one in self._control):
            run = list(some)
            found += run if control else [self.decode(run)]
        return found

    def decode_all(self, lines: Sequence[Sequence[int]]) -> list[str]:
        """`decode` of each."""
        with _unbroken("the tokenizer"):
            return list(self._backend.decode_batch([list(ids) for ids in lines], skip_special_tokens=True))

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """The tokens before a seat's first answer."""
        if self._template is None:
            return [*self._before, *self.encode("".join(message.content for message in messages))]
        said, spelled = self._set_aside(messages)
        return self._framed(self._rendered(said), spelled)

    def following(self, messages: Sequence[Message], ended: bool) -> list[int]:
        """The tokens between an answer and the next one. messages: said since. ended: the answer has its end token."""
        if self._template is None:
            return [*([] if ended else self.eos[:1]), *self.encode("".join(message.content for message in messages))]
        before = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _HERE}]
        said, spelled = self._set_aside(messages)
        ids = self._framed(self._rendered([*before, *said]).partition(_HERE)[2], spelled)
        return ids[1:] if ended and ids and ids[0] in self.eos else ids

    def _set_aside(self, messages: Sequence[Message]) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Messages as a template takes them, with a stand-in for each special token that a content spells.

        The stand-ins come with what they stand for. What a stranger or a model wrote could otherwise end its own
        message and begin one of another role.
        """
        places = [self._controls(self._encoded(message.content, letters=False)) for message in messages]
        if not any(places):
            return _plain(messages), {}
        contents = "".join(message.content for message in messages)
        mark = next(chr(code) for code in range(0xE000, 0x110000) if chr(code) not in contents)
        spelled: dict[str, str] = {}
        aside = []
        for message, found in zip(messages, places, strict=True):
            parts, last = [], 0
            for first, end in found:
                name = f"{mark}{len(spelled)}{mark}"
                spelled[name] = message.content[first:end]
                parts += [message.content[last:first], name]
                last = end
            aside.append(Message(message.role, "".join([*parts, message.content[last:]])))
        return _plain(aside), spelled

    def _framed(self, rendered: str, spelled: Mapping[str, str]) -> list[int]:
        """The tokens of a rendered dialogue: special ones where the template put them, letters for the stand-ins."""
        if not spelled:
            return list(self._encoded(rendered, letters=False).ids)
        ids: list[int] = []
        for part in filter(None, re.split(f"({'|'.join(spelled)})", rendered)):
            ids += self.encode(spelled[part]) if part in spelled else self._encoded(part, letters=False).ids
        return ids

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        try:
            with _unbroken("the tokenizer"):
                rendered: str = self._chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Broken:
            raise
        except Exception as error:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"the chat template takes no messages of {roles}: {str(error)[:200]}") from None
        return rendered

    @cached_property
    def _chat(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        names = {name: self._named(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        known = {name: text for name, text in names.items() if text is not None}
        chat = PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(self.files["tokenizer.json"]), **known)
        chat.chat_template = self._template
        return chat

    def _named(self, name: str) -> str | None:
        token = self._settings.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        return text if isinstance(text, str) and text else None


def of_characters(alphabet: Iterable[str]) -> Tokenizer:
    """A tokenizer of one token a character, and two more: padding (0) and the end of a text (1)."""
    vocabulary = {PAD: 0, EOS: 1}
    for character in sorted(set(alphabet)):
        vocabulary[character] = len(vocabulary)
    backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([PAD, EOS])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": _PLAIN,
    }
    return Tokenizer({"tokenizer.json": backend.to_str(), "tokenizer_config.json": json.dumps(settings)})


def may_render(files: Mapping[str, str]) -> bool:
    """Whether a tokenizer of these files may have a chat template that `transformers` renders; nothing is parsed."""
    settings = files.get("tokenizer_config.json", "")
    return "chat_template.jinja" in files or ("chat_template" in settings and json.dumps(_PLAIN) not in settings)


def _is_mark(token: str, template: str) -> bool:
    return bool(token) and token in template and not token.isspace() and not token.isalnum()


def _template(found: Any, source: str) -> str | None:
    """The chat template of a tokenizer's settings, which may hold several by name. Raises `UserError` for no text."""
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise UserError(f"{source} has a chat template that is no text")
    return found


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
