"""Prompts whose tokens only a tokenizer itself can tell: where a chat template frames messages, or splits are unsure.

Whoever verifies renders nothing: another process does (`selfplay.nets.language.framing`), many prompts at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from selfplay.store.coverage import FALSE, TRUE, Check
from selfplay.store.verify.answer import Answer
from selfplay.store.verify.spelling import is_kept

#: The last token of the seat's answer before it, -1 where that has none, None where there is no answer before; what the
#: seat was told since, as (role, text) each; the tokens that stand before its answer.
Prompt = tuple[int | None, tuple[tuple[str, str], ...], tuple[int, ...]]
#: Rows from this schema version on were written by code that gives tokens as this one does: special tokens that a
#: message spells were control tokens before.
_SAME_SINCE = 2


class Renders(Protocol):
    """Compares prompts with what a tokenizer makes of messages."""

    def agree(self, digest: str, files: str, prompts: Sequence[Prompt]) -> list[bool | None]:
        """Whether the tokens of each prompt are the tokenizer's; None where it cannot be told. files: JSON of them."""


@dataclass(frozen=True)
class Asked:
    """A prompt of an episode that is to be compared. place: of the turn after it. unsure: what is not covered, a key of
    `coverage.UNCOVERED`, where nothing can be told.
    """

    tokenizer: str
    prompt: Prompt
    place: int
    unsure: str
    schema_version: int


def asked_of(answer: Answer, tokenizer: str, unsure: str, schema_version: int) -> Asked:
    """The prompt before an answer."""
    last: int | None = None
    if answer.last is not None:
        last = (answer.last["token_ids"] or [-1])[-1]
    prompt = (last, answer.messages, tuple(answer.turn["suffix_ids"] or ()))
    return Asked(tokenizer, prompt, answer.place, unsure, schema_version)


def settled(
    checks: Sequence[Check], asked: Mapping[int, Sequence[Asked]], files: Mapping[str, str], renders: Renders | None
) -> list[Check]:
    """The answers with what comes of their prompts. asked: place in `checks` -> prompts. files: of tokenizers."""
    open_ones = {place: some for place, some in asked.items() if some and checks[place].state != FALSE}
    by_tokenizer = defaultdict[str, dict[Prompt, bool | None]](dict)
    for one in (one for some in open_ones.values() for one in some):
        by_tokenizer[one.tokenizer][one.prompt] = None
    for digest, prompts in by_tokenizer.items():
        if renders is not None and is_kept(digest, files.get(digest)):
            prompts |= dict(zip(prompts, renders.agree(digest, files[digest], list(prompts)), strict=True))
    found = list(checks)
    for place, some in open_ones.items():
        found[place] = _with(found[place], [(one, by_tokenizer[one.tokenizer][one.prompt]) for one in some])
    return found


def _with(check: Check, found: Iterable[tuple[Asked, bool | None]]) -> Check:
    uncovered = set(check.uncovered)
    for one, agrees in found:
        if agrees is False and one.schema_version >= _SAME_SINCE:
            reason = "the tokens before it are not what its tokenizer makes of what its seat was told"
            return Check(check.subject, FALSE, f"turn {one.place}: {reason}")
        if not agrees:
            uncovered.add(one.unsure)
    return replace(check, uncovered=tuple(sorted(uncovered))) if check.state == TRUE else check
