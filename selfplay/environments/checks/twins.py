"""Looks for held-out problems that are problems to train on, asked otherwise: twins that the task's key does not unite.

Two questions are suspected to be one where they differ in capitals, white space and the order of what + * , ; join: 3+4
and 4+3. Whether they are, only the author knows, so what is found is a remark with an example.
"""

from __future__ import annotations

import re
import time

from selfplay.contract import normalised
from selfplay.environments.checks.progress import progress
from selfplay.environments.task import Posed, Task

#: Problems of a level that are made, at most, and the processor time for them, seconds.
_PROBLEMS, _LEVEL_S = 2_000, 0.5
_TOKEN = re.compile(r"\w+(?:\.\w+)*|[^\w\s]")
_JOINING = frozenset("+*,;&|\u00d7\u00b7")


def form(posed: Posed) -> tuple[str, ...]:
    """What is asked, in words and signs; of words that one sign joins, such as a,b,c, the order is left out."""
    tokens = _TOKEN.findall(normalised("\n".join(message.content for message in posed.messages)))
    at = 0
    while at + 2 < len(tokens):
        sign, end = tokens[at + 1], at
        while end + 2 < len(tokens) and tokens[end + 1] == sign and sign in _JOINING:
            end += 2
        tokens[at : end + 1 : 2] = sorted(tokens[at : end + 1 : 2])
        at = max(end, at + 1)
    return tuple(tokens)


def twins(task: Task) -> str | None:
    """A remark with the first twins on two sides, of the easiest level and the one after, where there are any."""
    for level in task.spec.difficulties[:2]:
        seen: dict[tuple[str, ...], Posed] = {}
        until = time.process_time() + _LEVEL_S
        for seed in range(_PROBLEMS):
            if time.process_time() > until:
                break
            progress().at(f"seed {seed}, difficulty {level:g}")
            posed = task.pose(seed, level)
            if posed.side == "development":
                continue
            other = seen.setdefault(form(posed), posed)
            if other.side != posed.side:
                one, two = (_quoted(each) for each in (posed, other))
                place = f"difficulty {level:g}, seeds {other.problem.seed} and {seed}"
                sides = "one is held out and one is trained on"
                return f"{place}: {two} and {one}: if they are one problem, `key` must say so; {sides}"
    return None


def _quoted(posed: Posed) -> str:
    text = " ".join(posed.messages[-1].content.split())
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
