"""Ways to a right answer that need no thought: the prompt holds it, or one answer is right for all problems.

One prompt proves nothing: "Is it true or false?" holds the answer, too. So a rule is looked for that finds the answers
of many problems in their prompts, such as "what follows 'hint: '", and is right far more often than the best constant
answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Problems of a level that are looked at, and how few say nothing.
MOST, LEAST = 40, 12
#: A rule, or a constant answer, that is right in so large a share is a fault; in so large a share, worth a remark.
_FAULT, _REMARK = 0.95, 0.8
#: Of fewer problems an answer may be right by chance: one that holds for 9 in 10 does for 18 of 18 once in six times.
_SURE = 30
#: How much more often than the best constant answer a rule must be right.
_MARGIN = 0.25
#: A constant answer that is right in this share, or so few different answers, are worth a remark.
_CONSTANT, _FEW = 0.3, 3
#: Prompts and places in them from which rules are taken, and the words before or after an answer that make one.
_PROMPTS, _PLACES, _CONTEXT = 4, 12, 4
_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Shown:
    """A problem as it is asked and answered. where: its seed and difficulty. prompt: all that is said. answer: right"""

    where: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class _Rule:
    """Where an answer stands: after or before the first or last place of a text. context: None for the very edge."""

    after: bool
    first: bool
    context: str

    def finds(self, prompt: str, core: str) -> bool:
        at = prompt.find(self.context) if self.first else prompt.rfind(self.context)
        if at < 0:
            return False
        begin = at + len(self.context) if self.after else at - len(core)
        return begin >= 0 and prompt.startswith(core, begin) and _stands_alone(prompt, begin, begin + len(core))

    def __str__(self) -> str:
        side, which = ("after", "before")[not self.after], ("last", "first")[self.first]
        seen = self.context.strip(_BEGIN + _END)
        edge = "beginning" if self.after else "end"
        return f"{side} the {which} {seen!r}" if seen else f"at the very {edge} of the prompt"


#: Put round every prompt, so that a rule can name its edges.
_BEGIN, _END = "\x02", "\x03"


def leaks(level: Sequence[Shown]) -> tuple[str | None, str | None]:
    """(fault, remark) about problems of one difficulty with different prompts: the prompt says what is to be found."""
    cores = _cores([one.answer for one in level])
    pairs = [(_plain(one.prompt), core) for one, core in zip(level, cores, strict=True)]
    count = len(pairs)
    if count < LEAST or not all(cores):
        return None, None
    constant = Counter(cores).most_common(1)[0][1]
    found = [(_hits(rule, pairs), rule) for rule in dict.fromkeys(_rules(pairs))]
    best, rule = max(found, key=_clearest, default=(0, None))
    if rule is not None and best - constant >= _MARGIN * count and best >= _REMARK * count:
        stands = f"in {best} of {count} problems it stands {rule} ({level[0].where}: {level[0].answer!r:.60})"
        if best >= _FAULT * count:
            return f"the prompt gives the answer away: {stands}; take it out of what `prompt` returns", None
        return None, f"the prompt mostly holds the answer: {stands}"
    own = sum(_holds(prompt, core) for prompt, core in pairs)
    foreign = [_holds(prompt, core) for i, (prompt, _) in enumerate(pairs) for j, core in enumerate(cores) if i != j]
    chance = sum(foreign) / len(foreign)
    if own >= _FAULT * count and own / count - chance > 0.5:
        return None, (
            f"the answer stands somewhere in the prompt in {own} of {count} problems (that of another problem in "
            f"{chance:.0%}), which is right only where one of the things given is to be chosen"
        )
    return None, None


def constants(level: Sequence[Shown], accepts: Callable[[int, str], bool]) -> tuple[str | None, str | None]:
    """(fault, remark) about problems of one difficulty: an answer that is right whatever is asked.

    accepts: (index of a problem, answer) -> whether the verifier accepts it.
    """
    count, answers = len(level), Counter(one.answer for one in level)
    if count < LEAST:
        return None, None
    text = answers.most_common(1)[0][0]
    right = sum(one.answer == text or accepts(i, text) for i, one in enumerate(level))
    said = f"the answer {text!r:.60} is right in {right} of {count} problems"
    if right >= _FAULT * count and count >= _SURE:
        return f"{said}, so nothing is learnt from them; let `sample` vary what is right", None
    if right >= _CONSTANT * count or len(answers) <= _FEW:
        return None, f"{said} ({right / count:.0%}): a policy that always says so gets that much"
    return None, None


def _clearest(found: tuple[int, _Rule]) -> tuple[int, bool, int]:
    """Of rules that are right equally often, the one that a person understands soonest."""
    hits, rule = found
    return hits, rule.after, len(rule.context)


def _hits(rule: _Rule, pairs: Sequence[tuple[str, str]]) -> int:
    return sum(rule.finds(prompt, core) for prompt, core in pairs)


def _rules(pairs: Sequence[tuple[str, str]]) -> Iterator[_Rule]:
    """The rules by which the answers of the first problems could be found."""
    for prompt, core in pairs[:_PROMPTS]:
        for begin in list(_places(prompt, core))[:_PLACES]:
            before = _WORD.findall(prompt[:begin])[-_CONTEXT:]
            after = _WORD.findall(prompt[begin + len(core) :])[:_CONTEXT]
            for words in range(1, _CONTEXT + 1):
                for first in (True, False):
                    yield _Rule(True, first, "".join(before[-words:]))
                    yield _Rule(False, first, "".join(after[:words]))


def _holds(prompt: str, core: str) -> bool:
    return next(_places(prompt, core), None) is not None


def _places(prompt: str, core: str) -> Iterator[int]:
    """Where a text stands by itself in another, not within a word or a number."""
    at = prompt.find(core)
    while at >= 0:
        if _stands_alone(prompt, at, at + len(core)):
            yield at
        at = prompt.find(core, at + 1)


def _stands_alone(text: str, begin: int, end: int) -> bool:
    inside = text[begin].isalnum() and (text[begin - 1].isalnum() or re.search(r"\d\.$", text[begin - 2 : begin]))
    return not inside and not (text[end - 1].isalnum() and re.match(r"\w|\.\d", text[end : end + 2]))


def _plain(prompt: str) -> str:
    """A prompt in small letters with single spaces, no commas in numbers, and its edges marked."""
    return f"{_BEGIN}{_normal(prompt)}{_END}"


def _normal(text: str) -> str:
    return " ".join(_THOUSANDS.sub("", text.lower()).split())


def _cores(answers: Sequence[str]) -> list[str]:
    """The answers without the words with which all begin and end ("<answer>", "The answer is"); "" where none is left.

    Answers that are all the same are left as they are.
    """
    words = [_WORD.findall(_normal(answer)) for answer in answers]
    if len({tuple(one) for one in words}) <= 1:
        return ["".join(one) for one in words]
    head = _shared(words)
    words = [one[head:] for one in words]
    tail = _shared([one[::-1] for one in words])
    return ["".join(one[: len(one) - tail]).strip() for one in words]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """With how many words all begin, one of each left out."""
    count = 0
    while all(len(one) > count + 1 and one[count] == words[0][count] for one in words):
        count += 1
    return count
