"""Whether prompts are what a tokenizer makes of messages, found out in a process of its own, which is confined.

The tokenizers of a corpus may be a stranger's. A chat template is a program, and the library that tokenizers are made
for compiles what a file tells it to; so nothing of either is run by whoever asks. The process reads no file but those
of its libraries, reaches nothing, has 4 GiB of memory, and is ended where it does not answer in time. It says one word
a prompt: whoever took it over could make prompts of this corpus look right, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from selfplay import sandbox, surroundings
from selfplay.contract import Message
from selfplay.environments.isolation.links import Worker, close
from selfplay.errors import UserError
from selfplay.nets.language.tokenizer import FILES, Tokenizer, of_characters
from selfplay.sandbox.limits import one_thread

#: A prompt: the last token of its seat's answer before it, -1 where that has none, None where there is no answer; what
#: the seat was told since, as (role, text) each; the tokens that are to come of it.
Prompt = tuple[int | None, tuple[tuple[str, str], ...], tuple[int, ...]]
#: How long one portion of prompts may take, and the start of the process, seconds.
PORTION_S, START_S = 120.0, 300.0
#: Prompts of a portion, and characters of their texts together. A longer prompt is not rendered.
_PORTION, _CHARACTERS = 256, 2**22
#: After so many tokenizers that did not come to an end no other is tried: each costs its time.
_MOST_FAILURES = 3
#: What makes a template say something else the next time.
_UNREPEATABLE = re.compile(r"strftime_now|\blipsum\b|\|\s*random\b")
_CODE = "from selfplay.nets.language.framing import serve; serve({})"
_KEPT = ("PATH", "LANG", "PYTHONPATH", "HOME")


class Framing:
    """Asks one such process, which is started when it is first needed and keeps the newest tokenizer."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._worker: Worker | None = None
        self._loaded = ""
        self._failed: set[str] = set()

    def agree(self, digest: str, files: str, prompts: Sequence[Prompt]) -> list[bool | None]:
        """Whether the tokens of each prompt are those that the tokenizer gives; None where that cannot be told.

        files: JSON of the tokenizer's files, by name; digest: of them. It cannot be told where nothing is rendered: the
        template fails, names a date or chance, takes too long, or the libraries or the confinement are not here; nor
        where the same text is only split into other tokens here.
        """
        answers: dict[Prompt, bool | None] = {}
        for portion in _portions(dict.fromkeys(prompts)):
            answers |= dict(zip(portion, self._asked(digest, files, portion), strict=True))
        return [answers.get(prompt) for prompt in prompts]

    def _asked(self, digest: str, files: str, portion: list[Prompt]) -> list[bool | None]:
        nothing: list[bool | None] = [None] * len(portion)
        if digest in self._failed or len(self._failed) >= _MOST_FAILURES:
            return nothing
        try:
            told = self._ask({"files": None if digest == self._loaded else files, "prompts": portion}, PORTION_S)
        except (OSError, EOFError, ValueError):  # TimeoutError, too: it is an OSError
            self.close()
            self._failed.add(digest)
            return nothing
        self._loaded = digest
        if not isinstance(told, list) or len(told) != len(portion):
            return nothing
        return [one if isinstance(one, bool) else None for one in told]

    def _ask(self, order: object, seconds: float) -> object:
        if self._worker is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    surroundings.command(_CODE.format(theirs.fileno())), stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
                    env={name: os.environ[name] for name in _KEPT if name in os.environ}, start_new_session=True,
                )  # fmt: skip
            self._worker = Worker(ours, 0)
            seconds += START_S
        return json.loads(self._worker.ask(json.dumps(order).encode() + b"\n", seconds))

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            close(self._worker.link)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._worker, self._loaded = None, None, ""

    def __del__(self) -> None:
        if not sys.is_finalizing():  # then it ends as its socket does
            self.close()


def _portions(prompts: Sequence[Prompt] | dict[Prompt, None]) -> Iterator[list[Prompt]]:
    portion: list[Prompt] = []
    size = 0
    for prompt in prompts:
        long = sum(len(text) for _, text in prompt[1])
        if long > _CHARACTERS:
            continue
        if len(portion) == _PORTION or size + long > _CHARACTERS:
            yield portion
            portion, size = [], 0
        portion.append(prompt)
        size += long
    if portion:
        yield portion


def serve(descriptor: int) -> None:
    """In the other process: a line of answers for a line of prompts, until whoever asks is gone."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    one_thread()
    _first()
    sandbox.confine()
    tokenizer: Tokenizer | None = None
    with os.fdopen(os.dup(descriptor), "rb", 2**16) as orders:
        for line in orders:
            order = json.loads(line)
            if order["files"] is not None:
                tokenizer = _tokenizer(order["files"])
            said = json.dumps([_agrees(tokenizer, *prompt) for prompt in order["prompts"]]).encode() + b"\n"
            while said:
                said = said[os.write(descriptor, said) :]


def _first() -> None:
    """Renders something, so that all is loaded that a confined process could not load."""
    template = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    tokenizer = Tokenizer({**of_characters("ab").files, "chat_template.jinja": template})
    with contextlib.suppress(UserError):  # without transformers no template is rendered
        tokenizer.decode(tokenizer.opening([Message("user", "ab")]))


def _tokenizer(text: str) -> Tokenizer | None:
    """None where the files are none, or have a template that says something else the next time."""
    try:
        files = {name: told for name, told in json.loads(text).items() if isinstance(told, str)}
        looked_at = "".join(files.get(name, "") for name in FILES if name != "tokenizer.json")
        return None if _UNREPEATABLE.search(looked_at) else Tokenizer(files)
    except (UserError, ValueError, AttributeError, RecursionError):
        return None


def _agrees(tokenizer: Tokenizer | None, last: int | None, told: list[list[str]], ids: list[int]) -> bool | None:
    if tokenizer is None:
        return None
    messages = [Message(role, text) for role, text in told]
    try:
        given = (
            tokenizer.opening(messages) if last is None else tokenizer.following(messages, last in tokenizer.eos)
        )
        if given == ids:
            return True
        return None if tokenizer.parts(given) == tokenizer.parts(ids) else False
    except (UserError, ValueError, TypeError, OverflowError, RecursionError):
        return None
